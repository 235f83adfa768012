"""Which offloads a node file and a kernel agree on."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from fwd.config.load import parse_node_text
from fwd.control.offload import Offloads
from fwd.datapath.binding import Datapath, Pump
from fwd.datapath.packet import (
    OFFLOAD_MERGE_TCP,
    OFFLOAD_MERGE_UDP,
    OFFLOAD_UDP_GRO,
    OFFLOAD_UDP_SEGMENT,
)
from fwd.netlink.offload import TAP_CSUM, TAP_TSO, TAP_USO, UdpOffload
from tests.control.test_apply import SMALL

RICH = Offloads(TAP_CSUM | TAP_TSO | TAP_USO, UdpOffload(128, gro=True))
ALL = OFFLOAD_UDP_SEGMENT | OFFLOAD_UDP_GRO | OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP


def node(**switches: bool):
    """A node file with these features.offload."""
    text = ", ".join(f"{name}: {str(on).lower()}" for name, on in switches.items())
    return parse_node_text(
        "node: {name: n, ip: 127.0.0.1, pod_cidr: 10.0.0.0/24}\n"
        f"features: {{offload: {{{text}}}}}\n",
        Path("n.yaml"),
    )


@pytest.mark.parametrize(
    ("switches", "tap", "pump"),
    [
        ({}, TAP_CSUM | TAP_TSO | TAP_USO, ALL),
        ({"csum": False}, 0, ALL),
        ({"tso": False}, TAP_CSUM | TAP_USO, ALL),
        ({"uso": False}, TAP_CSUM | TAP_TSO, ALL & ~OFFLOAD_MERGE_UDP),
        ({"merge": False}, TAP_CSUM | TAP_TSO | TAP_USO, OFFLOAD_UDP_SEGMENT | OFFLOAD_UDP_GRO),
        ({"udp_gro": False}, TAP_CSUM | TAP_TSO | TAP_USO, ALL & ~OFFLOAD_UDP_GRO),
        ({"udp_segment": False}, TAP_CSUM | TAP_TSO | TAP_USO, ALL & ~OFFLOAD_UDP_SEGMENT),
    ],
    ids=str,
)
def test_switches_take_away(switches: dict[str, bool], tap: int, pump: int) -> None:
    """Each switch turns off its own offload and what rests on it."""
    plan = RICH.choose(node(**switches))
    assert (plan.tap, plan.pump, plan.segments) == (tap, pump, 128)


def test_what_the_kernel_lacks_is_off() -> None:
    """No USO before Linux 6.2, no UDP_GRO before 5.0, nothing at all before 4.18."""
    plan = Offloads(TAP_CSUM | TAP_TSO, UdpOffload(64, gro=False)).choose(node())
    assert plan.tap == TAP_CSUM | TAP_TSO
    assert (plan.pump, plan.segments) == (OFFLOAD_UDP_SEGMENT | OFFLOAD_MERGE_TCP, 64)
    plan = Offloads(TAP_CSUM, UdpOffload(0, gro=False)).choose(node())
    assert (plan.tap, plan.pump, plan.segments) == (TAP_CSUM, 0, 1)


def test_a_failed_offload_is_said_once() -> None:
    """The pump gave one up: one line, status says off, a reload that changes nothing keeps it."""
    offloads = Offloads(TAP_CSUM | TAP_TSO | TAP_USO, UdpOffload(128, gro=False))
    with Datapath.create(SMALL) as dp:
        pump = Pump(dp)
        try:
            offloads.use(node(), pump, None)
            with structlog.testing.capture_logs() as logs:
                offloads.report_failed(pump)
                pump.set_offload(OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, 128)  # as the pump does
                offloads.report_failed(pump)
                offloads.report_failed(pump)
            assert [line["offload"] for line in logs] == [["udp_segment"]]
            assert offloads.status(pump)["udp_segment"] is False
            offloads.use(node(), pump, None)
            assert pump.offload == OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP
            offloads.use(node(merge=False), pump, None)
            assert pump.offload == OFFLOAD_UDP_SEGMENT
        finally:
            pump.close()
