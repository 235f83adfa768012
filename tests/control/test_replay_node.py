"""One node of a replay: outputs by verdict, the slow path, and what arrives from the underlay."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import raw

from fwd.control.replay_node import ReplayNode
from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, PORT_OVERLAY, Packet

ROOT = Path(__file__).resolve().parents[2]
CURL, CURL_GW = "96:86:44:a6:37:01", "d2:ad:65:4d:d0:01"
POD = 2825


@pytest.fixture
def nodes():
    """The two shipped nodes."""
    pair = [ReplayNode(ROOT / f"configs/node{n}.yaml", seed=3) for n in (1, 2)]
    yield pair
    for node in pair:
        node.close()


def pod_frame(dst, payload):
    """A frame of the curl pod."""
    return raw(Ether(src=CURL, dst=CURL_GW) / IP(src="10.244.0.108", dst=dst) / payload)


def test_arp_and_echo_to_the_router_are_answered_in_place(nodes):
    """Punted frames come back on the port they came from, from the node's MAC."""
    arp = Ether(src=CURL, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=CURL, psrc="10.244.0.108", pdst="10.244.0.150"
    )
    for frame in (raw(arp), pod_frame("10.244.0.150", ICMP(id=1))):
        result = nodes[0].run(0, Packet(frame, POD)).answer
        assert result["verdict"] == "PUNT"
        (row,) = result["out"]
        answer = Ether(bytes.fromhex(row["frame"]))
        assert (row["port"], answer.src, answer.dst) == ("kube-system/curl", CURL_GW, CURL)


def test_probe_for_its_own_address_stays_unanswered(nodes):
    """Duplicate address detection gets silence: a punt with nothing out."""
    probe = Ether(src=CURL, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=CURL, psrc="0.0.0.0", pdst="10.244.0.108"
    )
    result = nodes[0].run(0, Packet(raw(probe), POD)).answer
    assert (result["verdict"], result["out"]) == ("PUNT", [])


def test_frames_leave_netdev_untouched(nodes):
    """A frame on its way out of netdev is an output there, and arrives at the peer's netdev."""
    frame = raw(Ether(src=CURL, dst=CURL_GW) / IP(src="192.0.2.1", dst="192.0.2.2") / TCP())
    result = nodes[0].run(0, Packet(frame, PORT_NETDEV, to_netdev=True))
    assert result.answer["out"] == [{"port": "netdev", "frame": frame.hex()}]
    arrived = nodes[1].from_underlay(nodes[0].world, result.outcome)
    assert arrived == Packet(frame, PORT_NETDEV)


def test_underlay_reaches_only_the_node_it_is_for(nodes):
    """A datagram to the peer's address arrives there with its outer addresses, no other does."""
    sent = nodes[0].run(0, Packet(pod_frame("10.244.2.171", TCP(flags="S")), POD)).outcome
    arrived = nodes[1].from_underlay(nodes[0].world, sent)
    assert (arrived.port, str(arrived.outer_src)) == (PORT_OVERLAY, "192.168.56.105")
    assert nodes[0].from_underlay(nodes[1].world, sent) is None
    stays = nodes[0].run(0, Packet(pod_frame("203.0.113.1", TCP(flags="S")), POD)).outcome
    assert nodes[1].from_underlay(nodes[0].world, stays) is None


def test_default_deny_looks_at_the_packet_for_the_nearest_rule(tmp_path):
    """The explanation's nearest rule is chosen by identity, protocol and port of the packet."""
    config = tmp_path / "w.yaml"
    text = (ROOT / "configs/node1.yaml").read_text()
    config.write_text(
        text.replace("    netns: curl\n", "    enforce: {egress: true}\n")
        + "policy:\n"
        + "".join(
            f"  - {{endpoint: kube-system/curl, direction: egress, {rule}, action: allow}}\n"
            for rule in (
                "identity: 7, proto: tcp, port: 80",
                "identity: 25002, proto: udp, port: 80",
            )
        )
    )
    node = ReplayNode(config, seed=0)
    try:
        frame = pod_frame("203.0.113.9", TCP(sport=1, dport=80, flags="S"))
        rule = node.run(0, Packet(frame, POD)).answer["rule"]
    finally:
        node.close()
    assert rule["kind"] == "default-deny"
    assert [item["index"] for item in rule["because"]] == [0, 1]
    assert rule["nearest"]["index"] == 0


def test_host_port_frames_have_no_slow_path(nodes):
    """ARP from the host's side is not answered by anybody here."""
    arp = Ether(src=CURL, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst="10.244.0.108")
    result = nodes[0].run(0, Packet(raw(arp), PORT_HOST)).answer
    assert all(row["port"] != "kube-system/curl" for row in result["out"])
