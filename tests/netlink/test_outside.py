"""cilium_net and the steering to it: rules as text, the device's shape, real frames."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from fwd.netlink.errors import LinkError
from fwd.netlink.link import Device
from fwd.netlink.outside import (
    NET_DEVICE,
    NetShape,
    Steering,
    check_reverse_path,
    check_uplink,
    shape_net,
    steer,
    steering_rules,
    stop_steering,
)
from fwd.netlink.shim import in_namespace
from fwd.netlink.tap import Tap, open_tap
from tests.netlink.namespaces import in_netns, ip_json, namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scapy.packet import Packet

NODE, CLIENT, EXTERNAL = IPv4Address("192.0.2.1"), "192.0.2.9", IPv4Address("198.51.100.1")
BACKEND = IPv4Address("203.0.113.5")
STEERING = Steering(
    uplink="eth0",
    node_ip=NODE,
    frontends=frozenset({(NODE, "tcp", 30080), (EXTERNAL, "udp", 53)}),
    answers=frozenset({(BACKEND, "tcp", 80)}),
    inside=frozenset({IPv4Network("10.244.0.0/16"), IPv4Network("10.244.2.0/24")}),
)
SHAPE = NetShape(bytes.fromhex("020000000042"), 1400)


def inside(name: str, function: Callable[[], Any]) -> Any:
    """Call a function in a thread that has entered a namespace."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        return in_namespace(fd, function)
    finally:
        os.close(fd)


def test_rules_name_each_frontend_twice_and_in_order():
    """Its frames by a set, errors about it by a rule; the order of a set makes no difference."""
    text = steering_rules(STEERING)
    assert "elements = { 192.0.2.1 . tcp . 30080, 198.51.100.1 . udp . 53 }" in text
    assert "@th,136,8 17 @th,160,32 0xc6336401 @th,224,16 53 fwd to" in text
    assert "elements = { 203.0.113.5 . tcp . 80 }" in text
    assert 'device "eth0"' in text


def test_an_uplink_without_ethernet_header_is_refused():
    """A tunnel has no MAC, a veth has one."""
    check_uplink(Device("eth0", 2, 1500, bytes(6)))
    with pytest.raises(LinkError, match="wg0 is no Ethernet device"):
        check_uplink(Device("wg0", 2, 1420, b""))


@pytest.mark.netns
def test_a_strict_reverse_path_filter_is_refused():
    """Loose and none are fine; the error has the command."""
    with namespace() as name:
        path = Path("/proc/sys/net/ipv4/conf/all/rp_filter")
        for mode in ("0", "2"):
            inside(name, lambda: path.write_text(mode))  # noqa: B023 - called at once
            inside(name, check_reverse_path)
        inside(name, lambda: path.write_text("1"))
        with pytest.raises(LinkError, match=r"`sysctl -w net\.ipv4\.conf\.all\.rp_filter=2`"):
            inside(name, check_reverse_path)


@pytest.fixture
def uplink() -> Iterator[tuple[str, Tap, Tap]]:
    """A namespace, and the TAPs that are its eth0 and its cilium_net."""
    with namespace() as name:
        wire, net = inside(name, lambda: (open_tap("eth0"), open_tap(NET_DEVICE)))
        try:
            for command in (
                ("link", "set", "eth0", "address", "02:00:00:00:00:01", "up"),
                ("addr", "add", f"{NODE}/24", "dev", "eth0"),
                ("neigh", "add", CLIENT, "lladdr", "02:00:00:00:00:09", "dev", "eth0"),
            ):
                subprocess.run(["ip", "-n", name, *command], check=True)
            yield name, wire, net
        finally:
            wire.close()
            net.close()


def put(tap: Tap, frame: Packet) -> None:
    """Let a frame come in by a TAP."""
    os.write(tap.fd, bytes(tap.vnet_hdr_size) + bytes(frame))


def taken(tap: Tap) -> list[Ether]:
    """The IPv4 and VLAN frames that went out by a TAP, when no more come."""
    frames = []
    while select.select([tap.fd], [], [], 0.2)[0]:
        frames.append(Ether(os.read(tap.fd, 65536)[tap.vnet_hdr_size :]))
    return [one for one in frames if one.type in {0x0800, 0x8100}]


def wire_frame(packet: Packet) -> Packet:
    """A frame of the client for the node."""
    return Ether(src="02:00:00:00:00:09", dst="02:00:00:00:00:01") / packet


def quoted(source: str, port: int) -> Packet:
    """An ICMP error about what came from a port."""
    flow = IP(src=source, dst=CLIENT) / TCP(sport=port, dport=50000)
    return IP(src="192.0.2.77", dst=source) / ICMP(type=11, code=0) / flow


STEERED = {
    "tcp": IP(src=CLIENT, dst=str(NODE)) / TCP(dport=30080),
    "options": IP(src=CLIENT, dst=str(NODE), options=b"\x01\x01\x01\x01") / TCP(dport=30080),
    "udp": IP(src=CLIENT, dst=str(EXTERNAL)) / UDP(dport=53) / Raw(b"x"),
    "answer": IP(src=str(BACKEND), dst=str(NODE)) / TCP(sport=80, dport=40000),
    "error": quoted(str(NODE), 30080),
    "error on the way to a backend": IP(src="192.0.2.77", dst=str(NODE))
    / ICMP(type=3, code=4)
    / IP(src=str(NODE), dst=str(BACKEND))
    / TCP(sport=40000, dport=80),
}
LEFT = {
    "another port": IP(src=CLIENT, dst=str(NODE)) / TCP(dport=30081),
    "another protocol": IP(src=CLIENT, dst=str(NODE)) / UDP(dport=30080) / Raw(b"x"),
    "another address": IP(src=CLIENT, dst=str(EXTERNAL)) / TCP(dport=30080),
    "ping": IP(src=CLIENT, dst=str(NODE)) / ICMP(),
    "low port": IP(src=str(BACKEND), dst=str(NODE)) / TCP(sport=80, dport=1024),
    "a pod's address": IP(src="10.244.2.7", dst=str(NODE)) / TCP(dport=30080),
    "error about the host": quoted(str(NODE), 22),
    "later fragment": IP(src=CLIENT, dst=str(NODE), frag=10, proto=17) / Raw(b"x" * 8),
}


@pytest.mark.netns
def test_the_device_gets_its_shape(uplink):
    """MAC and MTU as told, no ARP, and super-packets that one send carries when they are split."""
    name, _, _ = uplink
    inside(name, lambda: asyncio.run(shape_net(SHAPE)))
    (link,) = ip_json(name, "-d", "link", "show", "dev", NET_DEVICE)
    assert (link["address"], link["mtu"]) == ("02:00:00:00:00:42", 1400)
    assert {"UP", "NOARP"} <= set(link["flags"])
    assert link["gso_max_size"] == 54 + 46 * 1360  # 46 frames of 1422 bytes in 65507


@pytest.mark.netns
def test_frames_of_frontends_leave_by_the_tap_as_they_came(uplink):
    """And everything else is the host's; one transaction starts it and one ends it."""
    name, wire, net = uplink
    inside(name, lambda: asyncio.run(shape_net(SHAPE)))
    inside(name, lambda: asyncio.run(steer(STEERING)))
    for what, packet in STEERED.items():
        frame = wire_frame(packet)
        put(wire, frame)
        assert [bytes(one) for one in taken(net)] == [bytes(frame)], what
    for packet in LEFT.values():
        put(wire, wire_frame(packet))
    put(wire, Ether(dst="02:00:00:00:00:01") / Dot1Q(vlan=5) / STEERED["tcp"])
    assert taken(net) == []
    inside(name, lambda: asyncio.run(stop_steering()))
    put(wire, wire_frame(STEERED["tcp"]))
    assert taken(net) == []
    assert in_netns(name, "nft", "list", "ruleset").stdout == ""
    inside(name, lambda: asyncio.run(stop_steering()))  # nothing there is fine


@pytest.mark.netns
def test_later_fragments_follow_their_first(uplink):
    """Also a middle one; those of another datagram stay, as does one that comes too early."""
    name, wire, net = uplink
    inside(name, lambda: asyncio.run(shape_net(SHAPE)))
    inside(name, lambda: asyncio.run(steer(STEERING)))
    datagram = IP(src=CLIENT, dst=str(EXTERNAL), id=7) / UDP(dport=53) / Raw(b"x" * 3000)
    first, middle, last = fragment(datagram, 1200)
    for one in (first, middle, last):
        put(wire, wire_frame(one))
    assert [frame[IP].frag for frame in taken(net)] == [0, 150, 300]
    for changed in ({"id": 8}, {"src": "192.0.2.10"}):
        stranger = last.copy()
        for key, value in changed.items():
            setattr(stranger, key, value)
        put(wire, wire_frame(stranger))
    assert taken(net) == []


@pytest.mark.netns
@pytest.mark.parametrize("mode", ["0", "2"])
def test_what_comes_by_the_tap_is_routed_untouched(uplink, mode):
    """From the node's own address, past masquerading and conntrack, whatever rp_filter is."""
    name, wire, net = uplink
    conf = Path("/proc/sys/net/ipv4/conf")
    inside(name, lambda: (conf / "all/rp_filter").write_text(mode))
    inside(name, lambda: asyncio.run(shape_net(SHAPE)))
    inside(name, lambda: asyncio.run(steer(STEERING)))
    inside(name, lambda: (conf / NET_DEVICE / "rp_filter").write_text(mode))  # as udev may
    for rule in (
        "add table ip nat",
        "add chain ip nat post { type nat hook postrouting priority 100; }",
        "add rule ip nat post masquerade random",
        "add table ip strict",
        "add chain ip strict fw { type filter hook forward priority 0; }",
        "add rule ip strict fw ct state invalid drop",
    ):
        assert in_netns(name, "nft", rule).returncode == 0, rule
    taken(wire)
    answer = IP(src=str(NODE), dst=CLIENT, ttl=63) / TCP(sport=30080, dport=50000, flags="SA")
    put(net, Ether(dst=SHAPE.mac.hex(":")) / answer)
    (frame,) = taken(wire)
    assert (frame.dst, frame.src) == ("02:00:00:00:00:09", "02:00:00:00:00:01")
    assert (frame[IP].src, frame[TCP].sport, frame[IP].ttl) == (str(NODE), 30080, 62)
    assert inside(name, (conf / "all/forwarding").read_text).strip() == "0"


@pytest.mark.netns
def test_shape_is_set_again_and_changed(uplink):
    """MAC, MTU, one address of scope host, no ARP, no IPv6."""
    name, _wire, _net = uplink
    later = replace(SHAPE, mtu=1300)
    for shape in (SHAPE, SHAPE, later):
        inside(name, lambda: asyncio.run(shape_net(shape)))  # noqa: B023 - called at once
        (row,) = [one for one in ip_json(name, "addr", "show") if one["ifname"] == NET_DEVICE]
        assert (row["mtu"], row["address"], "NOARP" in row["flags"]) == (
            shape.mtu, shape.mac.hex(":"), True,
        )  # fmt: skip
        (address,) = row["addr_info"]
        assert (address["local"], address["prefixlen"], address["scope"]) == (
            "169.254.42.2", 32, "host",
        )  # fmt: skip


@pytest.mark.netns
def test_a_device_that_is_not_there_is_named():
    """And no rules are left of it."""
    with namespace() as name:
        with pytest.raises(LinkError, match="cilium_net: finding cilium_net"):
            inside(name, lambda: asyncio.run(shape_net(SHAPE)))
        with pytest.raises(LinkError, match="steering 2 frontends from eth0 to cilium_net: nft"):
            inside(name, lambda: asyncio.run(steer(STEERING)))
        assert in_netns(name, "nft", "list", "ruleset").stdout == ""
