"""Hops and MTUs as traceroute and tracepath find them, and what they mean for TCP; both families.

                     eth1 203.0.113.1 -- veth -- world 203.0.113.9
                           |
a0, a1 -- TAPs -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAPs -- b0
10.244.0.10 .11                                                10.244.2.10, MTU 1500
fd00:1::10  ::11                                               fd00:2::10

a0 and b0 have MTU 1500, more than the tunnel carries.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fwd.control.lab import Lab
from tests.netns.net import PREFIX, Net
from tests.netns.programs import PROBE, nginx, python
from tests.netns.worlds import dual_stack, pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

A0, A1, B0, WORLD = "10.244.0.10", "10.244.0.11", "10.244.2.10", "203.0.113.9"
A0_6, A1_6, B0_6 = "fd00:1::10", "fd00:1::11", "fd00:2::10"
ROUTER1, ROUTER2 = "10.244.0.150", "10.244.2.150"
ROUTER1_6, ROUTER2_6 = "fd00:1::150", "fd00:2::150"
WEB, WEB_6 = "10.96.0.10", "fd00:96::10"
TUNNEL_MTU = 1450
EXPIRED, NO_PORT, EXPIRED_6, NO_PORT_6 = "11/0", "3/3", "3/0", "1/4"
LARGE = bytes(range(256)) * 12288

DATAGRAM = """
import errno, json, socket, sys
address, length = sys.argv[1], int(sys.argv[2])
six = ":" in address
said = []
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(41 if six else 0, 23 if six else 10, 2)  # MTU_DISCOVER, DO: Don't Fragment
    sock.settimeout(5)
    sock.connect((address, 9))
    for _ in range(2):
        try:
            sock.send(bytes(length))
            sock.recv(1)
        except OSError as error:
            said.append(errno.errorcode.get(error.errno, type(error).__name__))
    said.append(sock.getsockopt(41 if six else 0, 24 if six else 14))  # MTU
print(json.dumps(said))
"""
"""Sends two unfragmentable datagrams; prints the error of each, and the MTU the socket knows."""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The drawing above; node1 masquerades."""
    files = dual_stack(two_nodes([pod("node1", 0), pod("node1", 1)], [pod("node2", 0)]))
    for data in files:
        data["features"] = {"ttl_exceeded_reply": True}
        data["services"] = [
            {"name": f"default/{name}", "frontend": frontend, "port": port, "proto": proto,
             "backends": [{"ip": backend, "port": port}]}
            for name, frontend, backend in (("web", WEB, B0), ("web6", WEB_6, B0_6))
            for port, proto in ((8080, "tcp"), (9, "udp"))
        ]  # fmt: skip
    files[0]["features"] |= {"masquerade": True}
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        lab.namespace("world")
        lab.wire([("node1", "203.0.113.1/24"), ("world", f"{WORLD}/24")], ifname="eth1")
        for node in nodes:
            net.start(node)
        for short in ("a0", "b0"):
            lab.run(short, "ip", "link", "set", "eth0", "mtu", "1500")
            nginx(net, short, files={"large": LARGE})
        yield net


# ---- hops ----


@pytest.mark.parametrize("kind", ["udp", "icmp"])
@pytest.mark.parametrize(
    ("target", "hops", "end"),
    [
        (B0, [ROUTER2], NO_PORT),
        (A1, [ROUTER1], NO_PORT),
        (WORLD, [ROUTER1, ROUTER1], NO_PORT),
        (B0_6, [ROUTER2_6], NO_PORT_6),
        (A1_6, [ROUTER1_6], NO_PORT_6),
    ],
)
def test_every_hop_says_its_name(net, kind, target, hops, end):
    """A probe a TTL: routers tell that it has expired, then the target answers.

    The way to the world has two hops at node1: the datapath and the host's stack.
    """
    expired = EXPIRED_6 if ":" in target else EXPIRED
    expected = [[ttl, teller, expired] for ttl, teller in enumerate(hops, 1)]
    answer = end if kind == "udp" else "reply"
    expected += [[ttl, target, answer] for ttl in range(len(hops) + 1, 4)]
    assert python(net, "a0", PROBE, kind, target, 1, 2, 3) == expected


# ---- MTUs ----


def forget(net: Net) -> None:
    """Both pods forget what they have learnt about paths."""
    for short in ("a0", "b0"):
        for family in ("-4", "-6"):
            net.lab.run(short, "ip", family, "route", "flush", "cache")


def known_mtu(net: Net, short: str, address: str) -> int | None:
    """The MTU of the path to an address that a pod has learnt, in bytes."""
    (route,) = json.loads(net.lab.run(short, "ip", "-j", "route", "get", address).stdout)
    for metrics in route.get("metrics", ()):
        if "mtu" in metrics:
            return int(metrics["mtu"])
    return None


@pytest.mark.parametrize("address", [B0, B0_6, WEB, WEB_6])
def test_a_datagram_too_big_for_the_tunnel_is_told_its_mtu(net, address):
    """Fragmentation needed, or packet too big: the socket gets the error, the kernel learns 1450.

    A second one of the size is refused before it leaves. Through a service, too.
    """
    forget(net)
    assert known_mtu(net, "a0", address) is None
    length = 1500 - (48 if ":" in address else 28)
    told = ["EMSGSIZE", "EMSGSIZE", TUNNEL_MTU]
    assert python(net, "a0", DATAGRAM, address, length) == told
    assert known_mtu(net, "a0", address) == TUNNEL_MTU


def test_a_datagram_that_just_fits_is_carried(net):
    """1422 bytes in IPv4, 1402 in IPv6: the target's port answers, nobody speaks of an MTU."""
    forget(net)
    for address, length in ((B0, 1422), (B0_6, 1402), (WEB, 1422), (WEB_6, 1402)):
        assert python(net, "a0", DATAGRAM, address, length)[:2] == ["ECONNREFUSED"] * 2
        assert known_mtu(net, "a0", address) is None


@pytest.mark.parametrize(
    ("client", "server", "sender", "host"),
    [
        ("a0", "b0", A0, B0),
        ("b0", "a0", B0, A0),
        ("a0", "b0", A0_6, f"[{B0_6}]"),
        ("a0", "b0", A0, WEB),
        ("a0", "b0", A0_6, f"[{WEB_6}]"),
    ],
)
def test_tcp_with_a_larger_mss_gets_through(net, client, server, sender, host):
    """Both ends offer an MSS for 1500 bytes; the sender learns the tunnel's MTU, 3 MB arrive."""
    forget(net)
    got = net.lab.directory / "got"
    net.lab.run(client, "curl", "-sSgf", "-m", "30", "-o", str(got), f"http://{host}:8080/large")
    assert got.read_bytes() == LARGE
    assert known_mtu(net, server, sender) == TUNNEL_MTU
