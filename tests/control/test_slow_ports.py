"""The slow path's view of the tables."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from fwd.config.load import load_node_file
from fwd.control.compile import compile_world
from fwd.control.slow_ports import SlowPorts
from fwd.datapath.packet import Punt

ASK = bytes.fromhex("0001080006040001")


def arp(mac: bytes, sender: str, target: str) -> bytes:
    """An ARP request as a pod sends it."""
    who = mac + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return b"\xff" * 6 + mac + b"\x08\x06" + ASK + who


def test_a_port_is_answered_with_its_own_macs():
    """The pod's and its gateway's; for the pod's own address, and for no port, it is silence."""
    world = compile_world(load_node_file(Path(__file__).parent / "trace_world.yaml"))
    ports = SlowPorts.of(world.endpoints, world.lxc)
    row = world.endpoints[0]
    own = next(str(one.addr) for one in world.lxc if one.lxc_id == row.lxc_id)
    answer = ports.answer(Punt(row.lxc_id, 0, arp(row.mac, own, "10.9.9.9")))
    assert answer is not None
    assert answer[:12] == row.mac + row.node_mac
    assert ports.answer(Punt(row.lxc_id, 0, arp(row.mac, "0.0.0.0", own))) is None
    assert ports.answer(Punt(9999, 0, arp(row.mac, own, "10.9.9.9"))) is None


def test_routers_are_the_hosts_router_addresses():
    """Other addresses of the host are not."""
    world = compile_world(load_node_file(Path(__file__).parent / "trace_world.yaml"))
    ports = SlowPorts.of(world.endpoints, world.lxc)
    assert set(ports.routers) == {row.addr for row in world.lxc if row.router}
