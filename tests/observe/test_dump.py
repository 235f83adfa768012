"""Dumps: Cilium's literal shapes (reference 8.6)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from fwd.model.rows import CtRow, EndpointRow, IpcacheRow, LxcRow, NatRow, PeerRow, PolicyRow
from fwd.observe import dump

CT = CtRow(
    daddr=ip_address("10.244.0.108"), saddr=ip_address("10.244.2.171"), dport=80, sport=43512,
    proto=6, tuple_flags=0, flags=0x10, rx_packets=4, rx_bytes=1120, tx_packets=6, tx_bytes=480,
    expires_s=17012345, src_identity=48172, last_rx_report_s=16990745, last_tx_report_s=16990745,
    backend_id=0, rev_nat_id=0, ifindex=0, rx_flags_seen=0x1B, tx_flags_seen=0x1B,
)  # fmt: skip
CURL = EndpointRow(2826, 27914, 29, bytes.fromhex("968644a637ec"), bytes.fromhex("d2ad654dd07b"))


def test_ct_line_is_ciliums():
    """The seed's connection reads as `cilium bpf ct list global` prints it."""
    assert dump.ct_line(dump.ct_record(CT)) == (
        "TCP OUT 10.244.0.108:43512 -> 10.244.2.171:80 expires=17012345 RxPackets=4 RxBytes=1120 "
        "RxFlagsSeen=0x1b LastRxReport=16990745 TxPackets=6 TxBytes=480 TxFlagsSeen=0x1b "
        "LastTxReport=16990745 Flags=0x0010 [ SeenNonSyn ] RevNAT=0 SourceSecurityID=48172"
    )


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"tuple_flags": 1}, "TCP IN 10.244.0.108:43512 -> 10.244.2.171:80"),
        (
            {"proto": 1, "tuple_flags": 2, "sport": 0, "dport": 0},
            "ICMP OUT 10.244.0.108:0 -> 10.244.2.171:0 related",
        ),
        (
            {
                "proto": 17, "tuple_flags": 4, "daddr": ip_address("10.96.0.10"), "sport": 53,
                "saddr": ip_address("10.244.0.108"), "dport": 40001,
            },
            "UDP OUT 10.96.0.10:53 -> 10.244.0.108:40001 service",
        ),
        (
            {"daddr": ip_address("fd00::108"), "saddr": ip_address("fd00::171")},
            "TCP OUT [fd00::108]:43512 -> [fd00::171]:80",
        ),
    ],
)  # fmt: skip
def test_ct_key_kinds(change: dict[str, object], key: str):
    """Direction, kind and family show in the key."""
    assert dump.ct_key(dump.ct_record(replace(CT, **change))) == key  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (0, "Flags=0x0000 [ ] RevNAT"),
        (0x413, "Flags=0x0413 [ RxClosing TxClosing SeenNonSyn FromTunnel ] RevNAT"),
        (0x8000, "Flags=0x8000 [ Unknown=0x8000 ] RevNAT"),
    ],
)
def test_ct_value_flag_words(flags: int, text: str):
    """Every bit has a word, unknown ones too."""
    assert text in dump.ct_value(dump.ct_record(replace(CT, flags=flags)))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            IpcacheRow(ip_network("10.244.2.171/32"), 27914, ip_address("192.168.56.106")),
            "identity=27914 encryptkey=0 tunnelendpoint=192.168.56.106",
        ),
        (IpcacheRow(ip_network("0.0.0.0/0"), 2), "identity=2 encryptkey=0 tunnelendpoint=0.0.0.0"),
        (
            IpcacheRow(ip_network("10.0.0.0/8"), 2, skip_tunnel=True),
            "identity=2 encryptkey=0 tunnelendpoint=0.0.0.0 flags=skiptunnel",
        ),
    ],
)
def test_ipcache_value_is_the_seeds(row: IpcacheRow, text: str):
    """The seed greps for `tunnelendpoint=`; flags show only when there are any."""
    assert dump.ipcache_value(dump.ipcache_record(row)) == text


def test_lxc_value_is_the_seeds():
    """Padding and upper case MACs as in the seed's listing."""
    row = LxcRow(ip_address("10.244.2.171"), 2826)
    assert dump.lxc_value(row, CURL) == (
        "id=2826  flags=0x0000 ifindex=29  mac=96:86:44:A6:37:EC nodemac=D2:AD:65:4D:D0:7B"
    )


def test_lxc_value_of_the_node():
    """The node's own addresses say only that."""
    assert dump.lxc_value(LxcRow(ip_address("10.244.2.150"), 0, host=True), None) == "(localhost)"


@pytest.mark.parametrize(
    ("proto", "port", "prefix_len", "text"),
    [
        (0, 0, 0, ("any", "any")),
        (6, 0, 8, ("tcp", "any")),
        (6, 80, 24, ("tcp", "80")),
        (17, 8080, 20, ("udp", "8080-8095")),
    ],
)
def test_policy_record_ports(proto: int, port: int, prefix_len: int, text: tuple[str, str]):
    """A port prefix reads as the range it spans."""
    row = PolicyRow(2825, 2, 0, proto, port, prefix_len, deny=True, rule_id=3)
    record = dump.policy_record(row, None)
    assert (record["proto"], record["port"]) == text
    assert (record["action"], record["direction"], record["identity_name"]) == (
        "deny", "egress", "any",
    )  # fmt: skip


def test_peer_record_identity_only_with_fixed_vni():
    """A peer whose VNI is the identity has none of its own."""
    ip = ip_address("192.168.56.107")
    assert dump.peer_record(PeerRow(ip), "node2", [])["identity"] is None
    fixed = dump.peer_record(PeerRow(ip, vni=42, identity=2), "legacy", [])
    assert (fixed["vni"], fixed["identity"]) == (42, 2)


def test_nat_line_says_which_way_and_what_becomes_of_whom():
    """As Cilium's `bpf nat list`; IPv4 only, like the table."""
    row = NatRow(
        ip_address("203.0.113.9"), ip_address("10.244.0.108"), 53, 40000, 17, False,
        ip_address("192.168.56.105"), 50000, 7,
    )  # fmt: skip
    assert dump.nat_line(dump.nat_record(row)) == (
        "UDP OUT 10.244.0.108:40000 -> 203.0.113.9:53 XLATE_SRC 192.168.56.105:50000"
    )
    back = dump.nat_record(replace(row, incoming=True))
    assert (back["direction"], " XLATE_DST " in dump.nat_line(back)) == ("IN", True)
