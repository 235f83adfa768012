"""UDP datagrams of 8 KB in fragments: whole both ways, and never past a port they may not reach.

a0 10.244.0.10 -----------------------+
                                      fwd node1 == UDP 8472 == fwd node2 -- b0 10.244.2.10
a1 10.244.0.11, egress: b0's UDP 7000 +                        ingress: UDP 7000

b0 echoes on 7000 and on 7001, which nobody may reach; 10.96.0.10 and fd00:96::10 stand for it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.programs import UDP_ASK, UDP_ECHO, python
from tests.netns.worlds import dual_stack, pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

A0, A0_6, A1, B0, B0_6 = "10.244.0.10", "fd00:1::10", "10.244.0.11", "10.244.2.10", "fd00:2::10"
SERVICE, SERVICE_6 = "10.96.0.10", "fd00:96::10"
OPEN, CLOSED = 7000, 7001
LEN = 8192

SEND_FRAGMENTS = """
import json, sys
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.sendrecv import sendp
mac, node_mac, src, dst, fragments = sys.argv[1:]
for number, dport, offset, more in json.loads(fragments):
    ip = IP(src=src, dst=dst, id=number, frag=offset // 8, flags="MF" if more else 0, proto=17)
    first = UDP(sport=9, dport=dport, len=2008, chksum=0) / Raw(bytes(992))
    sendp(Ether(src=mac, dst=node_mac) / ip / (first if offset == 0 else Raw(bytes(1000))),
          iface="eth0", verbose=False)
"""
"""Sends fragments of 1000 bytes, each given as [IP id, dport, offset, more]."""


def policed(name: str, direction: str, identity: int | str) -> dict[str, Any]:
    """A rule that allows UDP 7000."""
    return {"endpoint": f"default/{name}", "direction": direction, "identity": identity,
            "proto": "udp", "port": OPEN, "action": "allow"}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The drawing above, with the echoes running."""
    strict1 = {"enforce": {"ingress": False, "egress": True}}
    strict2 = {"enforce": {"ingress": True, "egress": False}}
    files = two_nodes([pod("node1", 0), pod("node1", 1, **strict1)], [pod("node2", 0, **strict2)])
    node1, node2 = dual_stack(files)
    node1["policy"] = [policed("a1", "egress", 26000)]
    node2["policy"] = [policed("b0", "ingress", "any")]
    node1["services"] = [
        {"name": f"default/{proto}{port}", "frontend": frontend, "port": port, "proto": "udp",
         "backends": [{"ip": backend, "port": port}]}
        for proto, frontend, backend in (("v4", SERVICE, B0), ("v6", SERVICE_6, B0_6))
        for port in (OPEN, CLOSED)
    ]  # fmt: skip
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        for short, port in (("b0", OPEN), ("b0", CLOSED), ("a0", OPEN)):
            log = f"echo-{short}-{port}.log"
            lab.spawn(short, sys.executable, "-c", UDP_ECHO, str(port), log=log)
            lab.wait_for(
                "the echo",
                lambda short=short, port=port: f":{port} " in lab.run(short, "ss", "-lun").stdout,
            )
        yield net


def arrived(net: Net) -> int:
    """Fragments of both families that b0's kernel has got."""
    text = net.lab.run("b0", "cat", "/proc/net/snmp", "/proc/net/snmp6").stdout
    lines = [line.split() for line in text.splitlines()]
    names, values = (line for line in lines if line[0] == "Ip:")
    (six,) = (line[1] for line in lines if line[0] == "Ip6ReasmReqds")
    return int(values[names.index("ReasmReqds")]) + int(six)


@pytest.mark.parametrize(
    ("client", "address"),
    [
        ("a0", B0), ("a0", SERVICE), ("a1", B0), ("a1", SERVICE), ("b0", A0),
        ("a0", B0_6), ("a0", SERVICE_6), ("a1", SERVICE_6), ("b0", A0_6),
    ],
)  # fmt: skip
def test_large_datagrams_come_back_whole(net, client, address):
    """Ten of 8 KB and one of 60 KB, to the open port: each is echoed, every byte compared."""
    assert python(net, client, UDP_ASK, address, OPEN, LEN, 10, 5) == ["whole"] * 10
    assert python(net, client, UDP_ASK, address, OPEN, 60_000, 1, 5) == ["whole"]


@pytest.mark.parametrize(
    ("client", "address", "node"),
    [
        ("a0", B0, "node2"), ("a0", SERVICE, "node2"), ("a0", B0_6, "node2"),
        ("a1", B0, "node1"), ("a1", SERVICE, "node1"), ("a1", SERVICE_6, "node1"),
    ],
)  # fmt: skip
def test_a_denied_port_gets_no_fragment_at_all(net, client, address, node):
    """The first fragment dies by policy where it is policed, all others with it: none arrives."""
    before, denied = arrived(net), net.drops(net.nodes[node], Drop.POLICY_DENIED)
    assert python(net, client, UDP_ASK, address, CLOSED, LEN, 1, 1) == ["TimeoutError"]
    assert arrived(net) == before
    assert net.drops(net.nodes[node], Drop.POLICY_DENIED) > denied


@pytest.mark.parametrize(
    ("fragments", "through"),
    [
        ([(1, OPEN, 0, True), (1, 0, 1000, False)], 2),  # the order of nature
        ([(2, CLOSED, 0, True), (2, 0, 1000, False)], 0),  # a port it may not reach
        ([(3, 0, 1000, False)], 0),  # without its first
        ([(4, 0, 1000, False), (4, OPEN, 0, True)], 1),  # before its first
        ([(5, OPEN, 0, True), (6, 0, 1000, False)], 1),  # of another datagram
        ([(7, OPEN, 0, True), (7, CLOSED, 0, True)], 1),  # a second first
        ([(8, CLOSED, 0, True), (8, OPEN, 0, True), (8, 0, 1000, False)], 2),
    ],
)
@pytest.mark.parametrize("client", ["a0", "a1"])
def test_forged_fragments_pass_no_port(net, client, fragments, through):
    """However fragments are made up: b0 gets those that belong to the open port, no others."""
    row = next(r for r in net.rows(net.nodes["node1"], "endpoint") if r["name"].endswith(client))
    number = 100 * (1 + ("a0", "a1").index(client))
    ours = [(number + one, *rest) for one, *rest in fragments]
    before = arrived(net)
    net.lab.run(client, sys.executable, "-c", SEND_FRAGMENTS, row["mac"], row["node_mac"],
                A0 if client == "a0" else A1, B0, json.dumps(ours))  # fmt: skip
    net.lab.wait_for("fragments", lambda: arrived(net) >= before + through)
    assert net.reaches("b0", A0), "what was sent before has arrived now"
    assert arrived(net) == before + through
