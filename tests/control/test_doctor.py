"""What `fwd doctor` finds, on loopback, with what is wrong put there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fwd.config.load import parse_node_text
from fwd.control import doctor
from fwd.control.doctor import examine
from fwd.netlink.echo import Way
from fwd.netlink.errors import LinkError
from fwd.netlink.link import Device
from fwd.netlink.offload import TAP_CSUM, UdpOffload
from tests.control.daemons import free_port
from tests.netlink.namespaces import namespace

pytestmark = pytest.mark.netns
LO = Device("lo", 1, 65536, bytes(6))


def found(
    extra: str = "", *, port: int | None = None, running: bool = False, ip: str = "127.0.0.1"
) -> dict[str, tuple[str, str]]:
    """Every finding about a node on loopback: what, level, text."""
    node = parse_node_text(
        f"node: {{name: n, ip: {ip}, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}}\n"
        f"tunnel: {{port: {port or free_port()}}}\n{extra}",
        Path("n.yaml"),
    )

    async def main():
        return {one.what: (one.level, one.text) async for one in examine(node, running=running)}

    return asyncio.run(main())


@contextlib.contextmanager
def listener(ip: str):
    """Somebody on a UDP port; gives the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ip, 0))
        yield sock.getsockname()[1]


def test_healthy_host_has_no_failure():
    """Everything is looked at, in order, and a pod's namespace with it."""
    with namespace() as name:
        row = f"endpoints:\n  - {{name: a, id: 2, identity: 300, ip: 10.0.0.2, netns: {name}}}\n"
        all_found = found(row)
    assert list(all_found) == [
        "tun device", "rights", "underlay", "tunnel port", "mtu", "tap offloads", "udp offloads",
        "pod a", "clock",
    ]  # fmt: skip
    assert [what for what, (level, _) in all_found.items() if level == "fail"] == []
    assert all_found["underlay"] == ("ok", "127.0.0.1 is on lo")


def test_absent_underlay_ends_what_rests_on_it():
    """Nothing is said of ports and peers that cannot be asked."""
    peers = "peers:\n  - {name: b, ip: 192.0.2.2, pod_cidr: 10.1.0.0/24}\n"
    all_found = found(peers, ip="192.0.2.1")
    assert all_found["underlay"][0] == "fail"
    assert "ip addr add 192.0.2.1" in all_found["underlay"][1]
    assert {"tunnel port", "mtu", "peer b"} & all_found.keys() == set()


def test_port_of_another_program_fails_with_its_name():
    """Unless that is our own daemon; a daemon without its port is odd."""
    with listener("127.0.0.1") as port:
        level, text = found(port=port)["tunnel port"]
        assert level == "fail"
        assert f"(pid {os.getpid()}): stop it, or set tunnel.port" in text
        assert found(port=port, running=True)["tunnel port"][0] == "ok"
    assert found(running=True)["tunnel port"][0] == "warn"
    assert found()["tunnel port"][0] == "ok"


def test_peer_that_listens_is_well_and_one_that_does_not_is_named():
    """The peer's kernel tells which."""
    with listener("127.0.0.2") as port:
        peers = (
            "peers:\n  - {name: b, ip: 127.0.0.2, pod_cidr: 10.1.0.0/24}\n"
            "  - {name: c, ip: 127.0.0.3, pod_cidr: 10.2.0.0/24}\n"
        )
        all_found = found(peers, port=port, running=True)
        alone = found(peers, port=port)
    level, text = all_found["peer b"]
    assert level == "ok"
    assert f"answers echo requests of up to 65535 bytes; UDP {port} is not refused" in text
    assert "cannot be told" in text, "no more is claimed than is known"
    assert all_found["peer c"][0] == "fail"
    assert f"nobody has UDP {port}: start its daemon" in all_found["peer c"][1]
    assert alone["peer c"] == ("warn", all_found["peer c"][1]), "the first of two set up"


def test_peer_that_is_silent_is_a_warning(monkeypatch):
    """A firewall may swallow echo requests and let VXLAN through."""
    monkeypatch.setattr(doctor, "_ECHO_S", 0.05)
    monkeypatch.setattr(doctor, "_port_refused", lambda *_: False)
    peers = "peers:\n  - {name: b, ip: 127.0.0.2, pod_cidr: 10.1.0.0/24}\n"
    for answer, text in ((Way(False, False, False), "does not answer"), (None, "cannot tell")):
        monkeypatch.setattr(doctor, "probe_way", lambda *_, answer=answer: answer)
        level, said = found(peers)["peer b"]
        assert level == "warn"
        assert text in said


@pytest.mark.parametrize(
    ("way", "known", "level", "texts"),
    [
        (Way(True, False, True), 1400, "warn", ("in fragments only", "tunnel.mtu to 1350")),
        (Way(True, False, True), 1500, "warn", ("in fragments only", "tracepath -n 127.0.0.2")),
        (Way(True, False, False), 1500, "fail", ("get lost", "lower tunnel.mtu")),
    ],
)
def test_way_that_large_packets_do_not_pass_is_named(monkeypatch, way, known, level, texts):
    """With the size that was tried, and what a router has said."""

    async def device_of(_address):
        return replace(LO, mtu=1500)

    monkeypatch.setattr(doctor, "device_of", device_of)
    monkeypatch.setattr(doctor, "_port_refused", lambda *_: False)
    monkeypatch.setattr(doctor, "probe_way", lambda *_: way)
    monkeypatch.setattr(doctor, "route_mtu", lambda *_: known)
    said = found("peers:\n  - {name: b, ip: 127.0.0.2, pod_cidr: 10.1.0.0/24}\n")["peer b"]
    assert said[0] == level
    assert all(text in said[1] for text in ("one of 1500 bytes", *texts)), said


def test_many_silent_peers_take_no_longer_than_one(monkeypatch):
    """They are asked side by side, however few cores there are."""

    def wait(*_):
        time.sleep(0.2)

    monkeypatch.setattr(doctor, "_port_refused", lambda *_: False)
    monkeypatch.setattr(doctor, "probe_way", wait)
    rows = "".join(
        f"  - {{name: p{one}, ip: 127.0.1.{one}, pod_cidr: 10.1.{one}.0/24}}\n"
        for one in range(1, 101)
    )
    began = time.monotonic()
    assert len([what for what in found(f"peers:\n{rows}") if what.startswith("peer p")]) == 100
    assert time.monotonic() - began < 3, "one after another they take 20 s"


def test_missing_namespace_and_missing_netns_fail():
    """Each pod by its name."""
    rows = (
        "endpoints:\n  - {name: a, id: 2, identity: 300, ip: 10.0.0.2, netns: fwdt-none}\n"
        "  - {name: b, id: 3, identity: 300, ip: 10.0.0.3}\n"
    )
    all_found = found(rows)
    assert all_found["pod a"][0] == all_found["pod b"][0] == "fail"
    assert "ip netns add fwdt-none" in all_found["pod a"][1]


@pytest.mark.parametrize(
    ("mtu", "device_mtu", "level", "text"),
    [
        ("auto", 1500, "ok", "pods have 1450, lo has 1500"),
        ("1480", 1500, "warn", "leave in fragments; set tunnel.mtu to auto"),
        ("auto", 600, "fail", "which leaves pods 550 bytes"),
    ],
)
def test_mtu_is_compared_with_the_underlays(monkeypatch, mtu, device_mtu, level, text):
    """Too large is slow, too small does not start."""

    async def device_of(_address):
        return replace(LO, mtu=device_mtu)

    monkeypatch.setattr(doctor, "device_of", device_of)
    port = free_port()
    node = parse_node_text(
        f"node: {{name: n, ip: 127.0.0.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}}\n"
        f"tunnel: {{port: {port}, mtu: {mtu}}}\n",
        Path("n.yaml"),
    )

    async def main():
        return {one.what: one async for one in examine(node, running=False)}

    finding = asyncio.run(main())["mtu"]
    assert finding.level == level
    assert text in finding.text


def test_lacking_offloads_are_named(monkeypatch):
    """As an old kernel has them."""
    monkeypatch.setattr(doctor, "probe_tap", lambda *_: TAP_CSUM)
    monkeypatch.setattr(doctor, "probe_udp", lambda _ip: UdpOffload(0, gro=True))
    all_found = found()
    assert all_found["tap offloads"][0] == all_found["udp offloads"][0] == "warn"
    assert all_found["tap offloads"][1].startswith("csum; without tso, uso large packets")
    assert all_found["udp offloads"][1].startswith("udp_gro; without udp_segment large")


def test_missing_rights_and_device_fail(monkeypatch):
    """And the rest is looked at all the same."""

    def refuse() -> None:
        raise LinkError("no CAP_NET_ADMIN: run as root")

    monkeypatch.setattr(doctor, "check_rights", refuse)
    monkeypatch.setattr(doctor, "check_tun_device", refuse)
    all_found = found()
    assert all_found["rights"] == ("fail", "no CAP_NET_ADMIN: run as root")
    assert all_found["tun device"][0] == "fail"
    assert "clock" in all_found


def test_masquerading_needs_nft(monkeypatch):
    """The rest the daemon does itself."""
    extra = "features: {masquerade: true}\n"
    for nft, finding in (
        (None, ("fail", "nft is missing: `apt install nftables`")),
        ("/usr/sbin/nft", ("ok", "nft is there")),
    ):
        monkeypatch.setattr(doctor.shutil, "which", lambda _name, nft=nft: nft)
        assert found(extra)["masquerade"] == finding


@pytest.mark.parametrize(
    ("source", "state", "level"), [("tsc", 0, "ok"), ("tsc", 5, "warn"), ("hpet", 0, "warn")]
)
def test_clock_is_judged_by_source_and_keeper(monkeypatch, tmp_path, source, state, level):
    """A slow source costs packets, an unkept clock only logs."""

    class Libc:
        @staticmethod
        def adjtimex(_timex) -> int:
            return state

    (tmp_path / "source").write_text(f"{source}\n")
    monkeypatch.setattr(doctor, "_CLOCKSOURCE", tmp_path / "source")
    monkeypatch.setattr(doctor.ctypes, "CDLL", lambda _name: Libc)
    finding = doctor._clock()
    assert finding.level == level
    assert source in finding.text
