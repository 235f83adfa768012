"""Services and the tunnel: rows of what arrives in it, and ports and sizes on both sides of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from scapy.layers.inet import TCP

from fwd.datapath.binding import PORT_NETDEV
from fwd.datapath.packet import PORT_HOST, Packet
from fwd.model.enums import OBS_TEXT, CtStatus, Drop, Verdict
from fwd.model.rows import IpcacheRow
from tests.csrc.path.rows import balance, load, packet_of, run, world_of
from tests.csrc.path.test_nodeport import (
    CLIENT,
    EXT,
    NODE1,
    NODE2,
    SEC,
    WORLD,
    WORLD2,
    arrive,
    cross,
    datapath,
    ends,
    frame,
    inner,
)

ROWS = load("nodeport_overlay")


@pytest.mark.parametrize("name", ROWS)
def test_nodeport_tunnel_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


def test_a_pod_of_the_other_node_believes_its_answers() -> None:
    """Through the tunnel to node 1's NodePort, to a pod there, and back as the service."""
    row = IpcacheRow(ip_network("192.168.56.105/32"), 6, tunnel_endpoint=NODE1)
    ours = replace(
        WORLD2, ipcache=(*(one for one in WORLD2.ipcache if one.prefix != row.prefix), row)
    )
    pod = {"smac": "96:86:44:a6:37:03", "dmac": "d2:ad:65:4d:d0:03", "src": "10.244.2.171"}
    with datapath() as one, datapath(ours) as two:
        asked = frame("curl", **pod, dst="192.168.56.105",
                      tcp={"sport": 50000, "dport": 30080, "flags": "S"})  # fmt: skip
        there = cross(one, 1, two.run(SEC, [Packet(asked, 60)])[0], NODE2, NODE1)
        assert (there.verdict, there.port, there.src_identity) == (Verdict.TX_ENDPOINT, 2827, 25002)
        told = frame("local", src="10.244.0.109", dst="10.244.2.171",
                     tcp={"sport": 8080, "dport": 50000, "flags": "SA"})  # fmt: skip
        back = cross(two, 1, one.run(SEC, [Packet(told, 2827)])[0], NODE1, NODE2)
        assert (back.verdict, back.port, back.ct) == (Verdict.TX_ENDPOINT, 60, CtStatus.REPLY)
        assert ends(back) == ("192.168.56.105", 30080, "10.244.2.171", 50000)


def test_an_mss_fits_the_tunnel_on_both_sides_of_it() -> None:
    """A client outside knows nothing of the tunnel: its SYN and the answer to it are clamped."""
    world = replace(WORLD, settings=replace(WORLD.settings, mss_clamp=True))
    with datapath(world) as dp:
        options = {"options": [("MSS", 1460)]}
        syn = {"sport": 50000, "dport": 80, "flags": "S", **options}
        sent = arrive(dp, 1, src=CLIENT, dst=EXT, tcp=syn)
        assert TCP(inner(sent)[20:]).options == [("MSS", 1360)]
        answer = {"sport": 8080, "dport": 50000, "flags": "SA", **options}
        back = frame("overlay", src="10.244.2.171", dst="10.244.0.150", tcp=answer)
        step = {"port": "overlay", "vni": 25002, "raw": back.hex()}
        out = dp.run(SEC, [packet_of(step, WORLD.ports)])[0]
        assert TCP(inner(out)[20:]).options == [("MSS", 1360)]
        near = {"sport": 50000, "dport": 30080, "flags": "S", **options}
        local = arrive(dp, 1, src=CLIENT, dst="192.168.56.105", tcp=near)
        assert TCP(inner(local)[20:]).options == [("MSS", 1460)], "no tunnel, no clamp"


def test_the_hosts_port_and_a_clients_are_two() -> None:
    """What the host sends from the router's address has its port for itself, answers too."""
    with datapath() as dp:
        own = frame("cilium_host", src="10.244.0.150", dst="10.244.2.171",
                    udp={"sport": 40000, "dport": 5353})  # fmt: skip
        (sent,) = dp.run(SEC, [Packet(own, PORT_HOST)])
        assert ends(sent)[:2] == ("10.244.0.150", 40000)
        client = arrive(dp, 1, src=CLIENT, dst=EXT, udp={"sport": 40000, "dport": 53})
        port = ends(client)[1]
        assert port != 40000
        for dport, verdict, to in ((40000, Verdict.TO_STACK, ("10.244.0.150", 40000)),
                                   (port, Verdict.TX_UNDERLAY, (CLIENT, 40000))):  # fmt: skip
            back = frame("overlay", src="10.244.2.171", dst="10.244.0.150",
                         udp={"sport": 5353, "dport": dport})  # fmt: skip
            packet = {"port": "overlay", "vni": 25002, "raw": back.hex()}
            out = dp.run(SEC, [packet_of(packet, WORLD.ports)])[0]
            assert (out.verdict, ends(out)[2:]) == (verdict, to)


def test_natively_the_hosts_port_and_a_clients_are_two_without_masquerading() -> None:
    """Clients of services hide behind the node's address, where the host has its own flows."""
    with datapath(world_of("nodeport-native")) as dp:
        own = frame(src="192.168.56.105", dst="10.244.2.171", tcp={"sport": 50000, "dport": 8080})
        (sent,) = dp.run(SEC, [Packet(own, PORT_NETDEV, to_netdev=True)])
        assert ends(sent)[:2] == ("192.168.56.105", 50000)
        client = arrive(dp, 1, src=CLIENT, dst="192.168.56.105",
                        tcp={"sport": 50000, "dport": 30081, "flags": "S"})  # fmt: skip
        port = ends(client)[1]
        assert port != 50000
        back = {"src": "10.244.2.171", "dst": "192.168.56.105"}
        own_answer = arrive(dp, 1, **back, tcp={"sport": 8080, "dport": 50000})
        assert own_answer.verdict == Verdict.TO_STACK
        answer = arrive(dp, 1, **back, tcp={"sport": 8080, "dport": port, "flags": "SA"})
        assert ends(answer) == ("192.168.56.105", 30081, CLIENT, 50000)
        pod = frame(src="10.244.0.108", dst=CLIENT, tcp={"sport": 50000, "dport": 443})
        (out,) = dp.run(SEC, [Packet(pod, PORT_NETDEV, to_netdev=True)])
        assert ends(out)[0] == "10.244.0.108", "pods are not masqueraded"


def test_an_exhausted_router_address_refuses_the_host_at_the_overlays_door() -> None:
    """167 behind to-overlay for the host's own flow, when no port is left toward the backend."""
    world = replace(WORLD, params=replace(WORLD.params, nat=1))
    with datapath(world) as dp:
        own = frame("cilium_host", src="10.244.0.150", dst="10.244.2.171",
                    udp={"sport": 40000, "dport": 5353})  # fmt: skip
        (out,) = dp.run(SEC, [Packet(own, PORT_HOST)])
        assert out.drop == Drop.NO_MAPPING_FOR_NAT_MASQUERADE
        assert [OBS_TEXT[point] for point in out.trace] == ["from-host", "to-overlay"]
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == 1
