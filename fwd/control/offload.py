"""Which offloads the daemon uses: what the kernel can, less what the node file switches off.

Probed once at start (fwd/netlink/offload.py); the switches may change with every reload, because
a kernel whose offload is broken should cost one line in a file, not a restart.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fwd.datapath.packet import (
    OFFLOAD_MERGE_TCP,
    OFFLOAD_MERGE_UDP,
    OFFLOAD_UDP_GRO,
    OFFLOAD_UDP_SEGMENT,
)
from fwd.netlink.offload import (
    TAP_CSUM,
    TAP_TSO,
    TAP_USO,
    UdpOffload,
    probe_tap,
    probe_udp,
    start_udp_gro,
    stop_udp_gro,
)
from fwd.netlink.tap import open_tap
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    import socket

    from fwd.config.schema import NodeFile, OffloadSection
    from fwd.datapath.binding import Pump
    from fwd.datapath.pump import PumpLoop
    from fwd.model.rows import Address

__all__ = ["Offloads", "Plan"]

_PUMP_NAMES = {
    OFFLOAD_UDP_SEGMENT: "udp_segment",
    OFFLOAD_UDP_GRO: "udp_gro",
    OFFLOAD_MERGE_TCP: "merge_tcp",
    OFFLOAD_MERGE_UDP: "merge_udp",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is switched on."""

    tap: int
    """``TAP_*`` of fwd/netlink/offload.py, for every TAP."""
    pump: int
    """``OFFLOAD_*`` of the pump."""
    segments: int
    """Datagrams in one train."""


class Offloads:
    """The offloads of one daemon.

    Args:
        tap: what TAPs can do (``TAP_*``).
        udp: what the tunnel's socket can do.
    """

    def __init__(self, tap: int, udp: UdpOffload) -> None:
        self._tap, self._udp = tap, udp
        self._reported = 0
        """Pump offloads that were said to have failed."""
        self.plan = Plan(0, 0, 1)

    @classmethod
    async def probe(cls, ip: Address) -> Offloads:
        """Try everything on scratch devices; ``ip`` is the node's underlay address.

        Raises:
            LinkError: no TAP can be made.
        """
        return await asyncio.to_thread(cls._probe, ip)

    @classmethod
    def _probe(cls, ip: Address) -> Offloads:
        tap = open_tap()
        try:
            able = probe_tap(tap.fd, tap.vnet_hdr_size)
        finally:
            tap.close()
        return cls(able, probe_udp(ip))

    def choose(self, node: NodeFile) -> Plan:
        """Return what ``node`` wants of what works, without switching anything."""
        return Plan(
            tap=self._tap & _wanted_of_taps(node.features.offload),
            pump=self._wanted_of_pump(node.features.offload),
            segments=max(self._udp.segments, 1),
        )

    def use(self, node: NodeFile, loop: PumpLoop, sock: socket.socket | None) -> None:
        """Switch the pump and its socket to what ``node`` wants; TAPs are their owners' affair.

        Args:
            node: what is wanted.
            loop: moves the packets; what waits in a socket that has UDP_GRO already is moved at
                once if that goes off, so the pump must watch such a one.
            sock: the tunnel's socket; None when there is no tunnel.
        """
        plan = self.choose(node)
        loop.pump.set_spin(node.features.spin_us * 1000)
        if sock is not None and self._udp.gro:
            if plan.pump & OFFLOAD_UDP_GRO:
                start_udp_gro(sock)
            elif not stop_udp_gro(sock, loop.move_waiting):
                get_logger().warning(
                    "udp_gro stays on: the tunnel's socket could not be emptied; reload again "
                    "when there is less traffic"
                )
                plan = replace(plan, pump=plan.pump | OFFLOAD_UDP_GRO)
        if plan != self.plan:
            loop.pump.set_offload(plan.pump, plan.segments)
            self.plan, self._reported = plan, 0

    async def watch(self, pump: PumpLoop) -> None:
        """Report failures for ever, a second late at most; only packets can meet one."""
        while True:
            await pump.moved()
            await asyncio.sleep(1)
            self.report_failed(pump.pump)

    def report_failed(self, pump: Pump) -> None:
        """Log, once each, the offloads the pump had to give up."""
        failed = self.plan.pump & ~pump.offload & ~self._reported
        if not failed:
            return
        self._reported |= failed
        names = [name for bit, name in _PUMP_NAMES.items() if failed & bit]
        get_logger().warning(
            "offload off: the kernel kept refusing it; packets go on without. "
            "features.offload switches it off for good, a reload that changes it tries again",
            offload=names,
        )

    def status(self, pump: Pump) -> dict[str, Any]:
        """Return every offload and whether it is in use."""
        tap, using = self.plan.tap, pump.offload
        return {
            "csum": bool(tap & TAP_CSUM),
            "tso": bool(tap & TAP_TSO),
            "uso": bool(tap & TAP_USO),
            "segments_max": self.plan.segments,
        } | {name: bool(using & bit) for bit, name in _PUMP_NAMES.items()}

    def _wanted_of_pump(self, want: OffloadSection) -> int:
        merge_udp = want.merge and want.uso and self._tap & TAP_USO
        return (
            (OFFLOAD_UDP_SEGMENT if want.udp_segment and self._udp.segments else 0)
            | (OFFLOAD_UDP_GRO if want.udp_gro and self._udp.gro else 0)
            | (OFFLOAD_MERGE_TCP if want.merge and self._tap & TAP_TSO else 0)
            | (OFFLOAD_MERGE_UDP if merge_udp else 0)
        )


def _wanted_of_taps(want: OffloadSection) -> int:
    if not want.csum:
        return 0
    return TAP_CSUM | (TAP_TSO if want.tso else 0) | (TAP_USO if want.uso else 0)
