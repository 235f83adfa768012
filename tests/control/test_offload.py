"""Which offloads a node file and a kernel agree on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest
import structlog

from fwd.config.load import parse_node_text
from fwd.control.offload import Offloads
from fwd.control.revive import Revived
from fwd.control.store import Store
from fwd.control.takeover import take_socket
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import (
    OFFLOAD_MERGE_TCP,
    OFFLOAD_MERGE_UDP,
    OFFLOAD_UDP_GRO,
    OFFLOAD_UDP_SEGMENT,
    PORT_OVERLAY,
)
from fwd.datapath.pump import PumpLoop
from fwd.netlink.offload import TAP_CSUM, TAP_TSO, TAP_USO, UdpOffload
from tests.control.test_apply import SMALL
from tests.csrc.io.rig import Rig
from tests.csrc.io.test_udp_send import from_peer, trains
from tests.datapath.test_pump import Recorder

SOL_UDP, UDP_GRO = 17, 104
IP_PKTINFO = 8
ALL = OFFLOAD_UDP_SEGMENT | OFFLOAD_UDP_GRO | OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP


def rich() -> Offloads:
    """All that a kernel can do."""
    return Offloads(TAP_CSUM | TAP_TSO | TAP_USO, UdpOffload(128, gro=True))


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
    plan = rich().choose(node(**switches))
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
        loop = PumpLoop(dp, lambda _punt: None, lambda _port: None)
        pump = loop.pump
        try:
            offloads.use(node(), loop, None)
            with structlog.testing.capture_logs() as logs:
                offloads.report_failed(pump)
                pump.set_offload(OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, 128)  # as the pump does
                offloads.report_failed(pump)
                offloads.report_failed(pump)
            assert [line["offload"] for line in logs] == [["udp_segment"]]
            assert offloads.status(pump)["udp_segment"] is False
            offloads.use(node(), loop, None)
            assert pump.offload == OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP
            offloads.use(node(merge=False), loop, None)
            assert pump.offload == OFFLOAD_UDP_SEGMENT
        finally:
            loop.close()


def payloads(rig: Rig) -> list[bytes]:
    """What reached pod 11 behind its TCP headers."""
    return [frame[54:] for _, frame in rig.received(11)]


def test_udp_gro_goes_off_while_a_train_waits() -> None:
    """Each datagram of the train is a packet of its own, as are those that come later."""
    frames = from_peer(20, 100)
    want = [bytes([number]) * 100 for number in range(20)]
    with Rig() as rig:
        offloads, loop = rich(), Recorder(rig).loop
        offloads.use(node(merge=False), loop, rig.underlay)
        trains(rig, frames, len(frames[0]))
        offloads.use(node(merge=False, udp_gro=False), loop, rig.underlay)
        assert rig.underlay.getsockopt(SOL_UDP, UDP_GRO) == 0
        assert payloads(rig) == want
        trains(rig, frames, len(frames[0]))
        rig.run()
        assert payloads(rig) == want
        assert rig.drops() == {}
        assert rig.pump.stats()["udp_rx_overflow"] == 0


def test_udp_gro_goes_off_and_on_under_trains() -> None:
    """Whenever it happens, no pod gets a train as one packet; what was left out is counted."""
    frames = from_peer(20, 100)
    with Rig() as rig:
        offloads, loop = rich(), Recorder(rig).loop
        ended = threading.Event()

        def send() -> None:
            while not ended.is_set():
                with contextlib.suppress(BlockingIOError):  # the queue is full
                    trains(rig, frames, len(frames[0]))

        sender = threading.Thread(target=send)
        sender.start()
        try:
            seen: list[bytes] = []
            for _ in range(40):
                for on in (True, False):
                    offloads.use(node(merge=False, udp_gro=on), loop, rig.underlay)
                    loop.move_waiting()
                    seen += payloads(rig)
        finally:
            ended.set()
            sender.join()
        assert {len(one) for one in seen} == {100}
        assert rig.pump.stats()["udp_rx_overflow"] > 0


def test_udp_gro_stays_on_where_nobody_takes_the_trains() -> None:
    """A pump that does not watch the socket: it is said, and the next reload tries again."""
    frames = from_peer(20, 100)
    with Rig() as rig:
        offloads, loop = rich(), Recorder(rig).loop
        rig.pump.remove(PORT_OVERLAY)
        offloads.use(node(), loop, rig.underlay)
        trains(rig, frames, len(frames[0]))
        with structlog.testing.capture_logs() as logs:
            offloads.use(node(udp_gro=False), loop, rig.underlay)
        assert [line["event"][:17] for line in logs] == ["udp_gro stays on:"]
        assert rig.underlay.getsockopt(SOL_UDP, UDP_GRO) == 1
        assert offloads.status(rig.pump)["udp_gro"] is True
        rig.pump.add_udp(rig.underlay.fileno())
        offloads.use(node(udp_gro=False), loop, rig.underlay)
        assert rig.underlay.getsockopt(SOL_UDP, UDP_GRO) == 0
        assert offloads.status(rig.pump)["udp_gro"] is False


def test_a_stored_socket_is_emptied_into_new_tables() -> None:
    """A restart that makes the tables anew and has udp_gro off finds a train in the socket."""
    frames = from_peer(20, 100)
    with Rig() as rig:
        rig.underlay.setsockopt(0, IP_PKTINFO, 1)
        rig.underlay.setsockopt(SOL_UDP, UDP_GRO, 1)
        trains(rig, frames, len(frames[0]))
        offloads, loop = rich(), Recorder(rig).loop
        rig.pump.remove(PORT_OVERLAY)
        file = node(merge=False, udp_gro=False)
        tunnel = file.tunnel.model_copy(update={"port": rig.port})
        file = file.model_copy(update={"tunnel": tunnel})
        revived = Revived(Store(), pump=loop, tunnel=rig.underlay)
        assert asyncio.run(take_socket(revived, file)) is rig.underlay
        assert revived.tunnel_watched
        offloads.use(file, loop, rig.underlay)
        assert payloads(rig) == [bytes([number]) * 100 for number in range(20)]
