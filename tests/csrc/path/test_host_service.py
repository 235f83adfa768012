"""The host's packets to services: rows, and choices and ports that rows cannot state."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from fwd.datapath.packet import PORT_HOST, PORT_OVERLAY, Packet
from fwd.model.enums import CtStatus, Verdict
from tests.csrc.path.build import vxlan
from tests.csrc.path.rows import load, run, world_of
from tests.csrc.path.test_nodeport import SEC, THREE, datapath, ends, frame

if TYPE_CHECKING:
    from fwd.datapath.binding import Datapath, Outcome

ROWS = load("host_service")
ROUTER, FAR, STICKY = "10.244.0.150", "10.244.2.171", "198.51.100.21"
NODE1, NODE2 = ip_address("192.168.56.105"), ip_address("192.168.56.106")


@pytest.mark.parametrize("name", ROWS)
def test_host_service_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


def send(dp: Datapath, frontend: str, sport: int) -> Outcome:
    """The first packet of a connection of the host to port 80."""
    tcp: dict[str, Any] = {"sport": sport, "dport": 80, "flags": "S"}
    (outcome,) = dp.run(SEC, [Packet(frame("cilium_host", dst=frontend, tcp=tcp), PORT_HOST)])
    assert outcome.verdict == Verdict.TX_UNDERLAY
    return outcome


def test_new_flows_spread_by_chance_though_the_service_has_a_maglev_table() -> None:
    """As pods': Maglev is for those who may come by another node next."""
    with datapath() as dp:
        hits = [ends(send(dp, THREE, 40000 + n))[2] for n in range(300)]
    counts = [hits.count(f"10.244.2.{last}") for last in (171, 172, 173)]
    assert sum(counts) == 300
    assert min(counts) > 60


def test_affinity_keeps_the_host_with_one_backend() -> None:
    """Its address is the client, whichever port it uses."""
    with datapath() as dp:
        assert len({ends(send(dp, STICKY, 40000 + n))[2] for n in range(50)}) == 1


@pytest.mark.parametrize("world", ["nodeport", "nodeport-off"])
def test_a_port_below_the_range_is_another_in_the_tunnel_and_comes_back(world: str) -> None:
    """A source port of 700 is drawn anew, and the answer finds 700."""
    with datapath(world_of(world)) as dp:
        src, sport, dst, dport = ends(send(dp, "10.96.0.10", 700))
        assert (src, dst, dport) == (ROUTER, FAR, 8080)
        assert sport >= 32768
        told = frame("overlay", src=FAR, dst=ROUTER,
                     tcp={"sport": 8080, "dport": sport, "flags": "SA"})  # fmt: skip
        told = vxlan(25002, told)
        (back,) = dp.run(SEC, [Packet(told, PORT_OVERLAY, outer_src=NODE2, outer_dst=NODE1)])
        assert (back.verdict, back.port, back.ct) == (Verdict.TO_STACK, PORT_HOST, CtStatus.REPLY)
        assert ends(back) == ("10.96.0.10", 80, ROUTER, 700)
