"""Each pod is answered as its own row says, others not at all."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from scapy.layers.l2 import ARP, Ether

from fwd.config.load import parse_node_text
from fwd.control.neighbours import Neighbours
from fwd.datapath.packet import Punt

NODE = """\
node: {name: n, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}
endpoints:
  - {name: a, id: 10, identity: 300, ip: 10.0.0.10, mac: "02:00:00:00:00:0a",
     node_mac: "02:00:00:00:01:0a"}
"""


def request(source: str) -> bytes:
    """A pod asks for the gateway."""
    frame = Ether(src=source, dst="ff:ff:ff:ff:ff:ff")
    return bytes(frame / ARP(op=1, hwsrc=source, psrc="10.0.0.10", pdst="10.0.0.1"))


def test_pod_gets_its_node_mac():
    """The gateway's MAC is the one of the pod's own row."""
    neighbours = Neighbours(parse_node_text(NODE, Path("n.yaml")))
    answer = neighbours.answer(Punt(10, 0, request("02:00:00:00:00:0a")))
    assert answer is not None
    reply = Ether(answer)[ARP]
    assert (reply.op, reply.hwsrc) == (2, "02:00:00:00:01:0a")
    assert ip_address(reply.psrc) == ip_address("10.0.0.1")


def test_port_without_a_pod_is_not_answered():
    """cilium_host and pods that just went."""
    neighbours = Neighbours(parse_node_text(NODE, Path("n.yaml")))
    assert neighbours.answer(Punt(11, 0, request("02:00:00:00:00:0b"))) is None
