"""A pod that forges harms nobody: each frame has its reason, its neighbours notice nothing.

a0 forges -- TAP --+
                   fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- b0
a1 victim -- TAP --+
10.244.0.11, fd00:1::11                                    10.244.2.10, fd00:2::10
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.programs import fetch, nginx
from tests.netns.worlds import dual_stack, pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

A1, B0, NODE1, NODE2 = "10.244.0.11", "10.244.2.10", "192.168.56.105", "192.168.56.106"
A1_6, B0_6, ROUTER1_6 = "fd00:1::11", "fd00:2::10", "fd00:1::150"

FORGE = """
import sys
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect, ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo, ICMPv6NDOptSrcLLAddr, IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.sendrecv import sendp
kind, mac, router_mac, victim_mac = sys.argv[1:]
own, victim, remote, router = "10.244.0.10", "10.244.0.11", "10.244.2.10", "10.244.0.150"
own6, victim6, remote6, router6 = "fd00:1::10", "fd00:1::11", "fd00:2::10", "fd00:1::150"
lie, tells = ICMPv6NDOptDstLLAddr(lladdr=mac), ICMPv6NDOptSrcLLAddr(lladdr=mac)
everybody = "ff:ff:ff:ff:ff:ff"
inner = Ether(src=mac, dst=router_mac) / IP(src=victim, dst=remote) / UDP(dport=80)

def frames(*packets):
    return [Ether(src=mac, dst=router_mac) / one for one in packets]

def arp(op, sender, target):
    return [Ether(src=mac, dst=dst) / ARP(op=op, hwsrc=mac, psrc=sender, hwdst=hw, pdst=target)
            for dst, hw in ((everybody, everybody), (victim_mac, victim_mac))]

forged = {
    "arp replies": arp(2, router, victim) + arp(2, victim, router) + arp(2, remote, victim),
    "arp announcements": arp(1, router, router) + arp(1, victim, victim),
    "arp requests": arp(1, victim, router) + arp(1, router, victim),
    "neighbour advertisements": [
        Ether(src=mac, dst=dst) / IPv6(src=target, dst=to, hlim=255)
        / ICMPv6ND_NA(tgt=target, R=1, S=0, O=1) / lie
        for target in (router6, victim6)
        for dst, to in (("33:33:00:00:00:01", "ff02::1"), (victim_mac, victim6))
    ],
    "own neighbour advertisements": frames(
        *(IPv6(src=own6, dst=to, hlim=255) / ICMPv6ND_NA(tgt=target, R=1, S=1, O=1) / lie
          for target in (router6, victim6, own6) for to in ("ff02::1", victim6))
    ),
    "solicitations of strangers": frames(
        *(IPv6(src=own6, dst="ff02::1:ff00:77", hlim=255) / ICMPv6ND_NS(tgt=f"fd00:1::{n}77")
          / tells for n in range(1, 6))
    ),
    "router advertisements": [
        Ether(src=mac, dst=dst) / IPv6(src="fe80::1", dst=to, hlim=255)
        / ICMPv6ND_RA(routerlifetime=1800) / ICMPv6NDOptPrefixInfo(prefix="fd00:bad::") / tells
        for dst, to in (("33:33:00:00:00:01", "ff02::1"), (victim_mac, victim6))
    ],
    "redirects": frames(IPv6(src="fe80::1", dst=victim6, hlim=255)
                        / ICMPv6ND_Redirect(tgt=own6, dst=remote6) / lie),
    "addresses": frames(*(IP(src=src, dst=remote) / what
                          for src in (victim, router, remote, "8.8.8.8", "127.0.0.1", "0.0.0.0")
                          for what in (UDP(dport=80), TCP(dport=80, flags="S"), ICMP()))),
    "IPv6 addresses": frames(*(IPv6(src=src, dst=remote6) / TCP(dport=80, flags="S")
                               for src in (victim6, router6, "::1", "2001:db8::1"))),
    "MACs": [Ether(src=src, dst=router_mac) / IP(src=own, dst=remote) / UDP(dport=80)
             for src in (victim_mac, router_mac, "02:00:00:00:00:99")],
    "overlay packets": frames(*(IP(src=own, dst=dst) / UDP(sport=sport, dport=8472)
                                / VXLAN(vni=vni, flags=8) / inner
                                for dst in (remote, victim, "192.168.56.106", "192.168.56.105")
                                for sport in (8472, 40000) for vni in (1, 2, 25001))),
    "VLAN tags": [Ether(src=mac, dst=router_mac) / Dot1Q(vlan=5)
                  / IP(src=own, dst=remote) / UDP(dport=80)],
}
sendp(forged[kind], iface="eth0", verbose=False)
print(len(forged[kind]))
"""

FLOOD = """
import socket, sys
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
target = socket.inet_aton(sys.argv[2])
request = b"\\xff" * 6 + mac + bytes.fromhex("08060001080006040001")
request += mac + socket.inet_aton("10.244.0.10") + bytes(6) + target
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind(("eth0", 0))
    for _ in range(int(sys.argv[3])):
        sock.send(request)
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The drawing above; node1 masquerades, so that what its pods send could look like its own."""
    rows1 = [pod("node1", 0), pod("node1", 1)]
    files = dual_stack(two_nodes(rows1, [pod("node2", 0)]))
    files[0]["features"] = {"masquerade": True}
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        nginx(net, "b0")
        assert all(net.reaches("a1", one) for one in (B0, B0_6))
        yield net


def macs(net: Net) -> tuple[str, str, str]:
    """Those of a0, of its gateway, and of a1."""
    rows = {row["name"]: row for row in net.rows(net.nodes["node1"], "endpoint")}
    return rows["default/a0"]["mac"], rows["default/a0"]["node_mac"], rows["default/a1"]["mac"]


def view(net: Net, short: str) -> dict[str, object]:
    """What a pod believes of its network: neighbours' MACs, addresses, routes."""

    def ip(*words: str) -> list[dict[str, object]]:
        listing: list[dict[str, object]] = json.loads(net.lab.run(short, "ip", "-j", *words).stdout)
        return listing

    return {
        "neighbours": {row["dst"]: row["lladdr"] for row in ip("neigh") if "lladdr" in row},
        "addresses": {a["local"] for row in ip("addr") for a in row["addr_info"]},
        "routes": sorted(str((row["dst"], row.get("gateway"))) for six in ("-4", "-6")
                         for row in ip(six, "route")),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("arp replies", None),
        ("arp announcements", None),
        ("arp requests", None),
        ("neighbour advertisements", None),
        ("own neighbour advertisements", None),
        ("solicitations of strangers", Drop.UNKNOWN_L3_TARGET_ADDRESS),
        ("router advertisements", Drop.FORBIDDEN_ICMPV6_MESSAGE),
        ("redirects", Drop.FORBIDDEN_ICMPV6_MESSAGE),
        ("addresses", Drop.INVALID_SOURCE_IP),
        ("IPv6 addresses", Drop.INVALID_SOURCE_IP),
        ("MACs", Drop.INVALID_SOURCE_MAC),
        ("overlay packets", Drop.ENCAPSULATION_TRAFFIC_IS_PROHIBITED),
        ("VLAN tags", Drop.UNSUPPORTED_L3_PROTOCOL),
    ],
)
def test_what_a_pod_forges_harms_nobody(net: Net, kind: str, reason: Drop | None) -> None:
    """Each frame is counted under its reason, or is for the slow path, which believes nothing.

    The victim and the pod of the other node believe what they did before, and talk to each other.
    """
    node1 = net.nodes["node1"]
    before = {short: view(net, short) for short in ("a1", "b0")}

    def count() -> int:
        return net.balance(node1)["punted"] if reason is None else net.drops(node1, reason)

    start = count()
    sent = int(net.lab.run("a0", sys.executable, "-c", FORGE, kind, *macs(net)).stdout)
    net.lab.wait_for("the counter", lambda: count() >= start + sent)
    assert reason is None or count() == start + sent
    assert {short: view(net, short) for short in ("a1", "b0")} == before
    assert fetch(net, "a1", f"http://{B0}:8080/") == ["b0"]
    assert fetch(net, "a1", f"http://[{B0_6}]:8080/") == ["b0"]
    assert net.drops(net.nodes["node2"], Drop.UNKNOWN_PEER) == 0


def test_a_flood_of_arp_starves_only_its_pod(net: Net) -> None:
    """20,000 requests from a0 are limited and counted; a1, asking anew, is answered meanwhile."""
    node1 = net.nodes["node1"]
    mac, *_ = macs(net)
    flood = net.lab.spawn(
        "a0", sys.executable, "-c", FLOOD, mac, "10.244.0.150", "20000", log="flood.log"
    )
    net.lab.wait_for("the limit", lambda: net.drops(node1, Drop.DROP_RATE_LIMITED) > 0)
    for _ in range(3):
        net.lab.run("a1", "ip", "neigh", "flush", "dev", "eth0")
        assert net.reaches("a1", B0)
    assert flood.wait(timeout=30) == 0
    net.lab.wait_for("a0's turn", lambda: net.reaches("a0", B0))
