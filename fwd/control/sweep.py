"""Conntrack's garbage collection: an adaptive sweep, and purging what an endpoint leaves behind.

Both walk a table by cursor in short steps and give the loop its turn after each, so that a table
of a million entries never keeps packets waiting.
Source: Cilium's GC interval (datapath reference 3.8).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from fwd.datapath.binding import Datapath
    from fwd.model.rows import Address

__all__ = ["ConntrackSweep", "next_interval_s", "now_s", "purge", "purge_services"]

START_INTERVAL_S = 300.0
MIN_INTERVAL_S = 10.0
MAX_INTERVAL_S = 1800.0
"""Cilium's limit for tables that do not evict by themselves, which ours is not either."""
TICK_S = 0.5
"""Seconds between looks at the tables' pressure: after a flood, a client's second SYN, a second
after its first, must find room."""
STEP = 4096
"""Entries a step walks: about 0.2 ms."""
SERVICE_STEP = 256
"""The same where each entry costs a walk over its service's backends."""
_TABLES = {True: "ct_tcp", False: "ct_any"}


def now_s() -> int:
    """Return the seconds conntrack lives by: the pump's clock, which goes on in suspend."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))


def next_interval_s(interval_s: float, deleted_ratio: float) -> float:
    """Return the time to the next run: shorter when much had expired, longer when little had.

    Args:
        interval_s: seconds since the run before.
        deleted_ratio: part of the entries that the run deleted, 0 to 1.
    """
    if deleted_ratio > 0.25:
        return max(MIN_INTERVAL_S, interval_s * (1 - min(deleted_ratio, 0.9)))
    if deleted_ratio < 0.05:
        return min(MAX_INTERVAL_S, interval_s * 1.5)
    return interval_s


@dataclass(slots=True)
class _Schedule:
    """When one of the two tables is swept next."""

    interval_s: float = START_INTERVAL_S
    due_s: float = field(default_factory=lambda: time.monotonic() + START_INTERVAL_S)
    pressure: int = 0
    """Evictions and refused inserts at the last look, those of the nat table included."""


class ConntrackSweep:
    """Sweeps both conntrack tables until its task is cancelled.

    Args:
        dp: whose tables they are.
        moved: waits until packets move, so many seconds at most. Only they can press a table; None
            = they may at any time.
    """

    def __init__(
        self, dp: Datapath, moved: Callable[[float], Awaitable[None]] | None = None
    ) -> None:
        self._dp = dp
        self._moved = moved
        self._schedules = {tcp: _Schedule() for tcp in _TABLES}
        self.runs = 0
        self.deleted = 0

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            if self._moved is not None:
                due_s = min(schedule.due_s for schedule in self._schedules.values())
                await self._moved(max(0.0, due_s - time.monotonic()))
            await asyncio.sleep(TICK_S)
            for tcp, schedule in self._schedules.items():
                pressed = self._is_pressed(tcp, schedule)
                if pressed or time.monotonic() >= schedule.due_s:
                    await self.sweep(tcp, pressed=pressed)
                    await self.sweep_nat()

    async def sweep_nat(self) -> int:
        """Delete the masquerade mappings whose connection conntrack has forgotten.

        Returns:
            How many were deleted.
        """
        deleted, cursor = self._dp.nat_sweep(cursor=0, budget=STEP)
        while cursor:
            await asyncio.sleep(0)
            more, cursor = self._dp.nat_sweep(cursor=cursor, budget=STEP)
            deleted += more
        return deleted

    async def sweep(self, tcp: bool, *, pressed: bool = False) -> int:
        """Delete the expired entries of one table and schedule its next run.

        Args:
            tcp: which table.
            pressed: it runs before its time, so that it found little to delete says nothing: the
                interval does not grow.

        Returns:
            How many were deleted.
        """
        before = self._dp.stats(_TABLES[tcp]).count
        deleted, cursor = self._step(tcp, 0)
        while cursor:
            await asyncio.sleep(0)
            more, cursor = self._step(tcp, cursor)
            deleted += more
        schedule = self._schedules[tcp]
        ratio = deleted / before if before else 0.0
        interval_s = next_interval_s(schedule.interval_s, ratio)
        schedule.interval_s = min(interval_s, schedule.interval_s) if pressed else interval_s
        schedule.due_s = time.monotonic() + schedule.interval_s
        self.runs += 1
        self.deleted += deleted
        return deleted

    def _step(self, tcp: bool, cursor: int) -> tuple[int, int]:
        return self._dp.ct_sweep(tcp=tcp, now_s=now_s(), cursor=cursor, budget=STEP)

    def _is_pressed(self, tcp: bool, schedule: _Schedule) -> bool:
        """Tell whether room was missed since the last look; a mapping goes with its connection."""
        tables = [self._dp.stats(name) for name in (_TABLES[tcp], "nat")]
        pressure = sum(stats.evictions + stats.failures for stats in tables)
        grown, schedule.pressure = pressure > schedule.pressure, pressure
        return grown


async def purge(dp: Datapath, addrs: Iterable[Address]) -> int:
    """Delete every conntrack entry that has one of ``addrs`` on either side.

    Returns:
        How many were deleted.
    """
    deleted = 0
    for addr in addrs:
        for tcp in _TABLES:
            cursor = 0
            while True:
                count, cursor = dp.ct_purge(tcp=tcp, addr=addr, cursor=cursor, budget=STEP)
                deleted += count
                if not cursor:
                    break
                await asyncio.sleep(0)
    return deleted


async def purge_services(dp: Datapath) -> int:
    """Delete every conntrack entry of a flow whose service, or whose backend in it, is gone.

    Returns:
        How many were deleted.
    """
    deleted = 0
    for tcp in _TABLES:
        cursor = 0
        while True:
            count, cursor = dp.ct_purge_services(tcp=tcp, cursor=cursor, budget=SERVICE_STEP)
            deleted += count
            if not cursor:
                break
            await asyncio.sleep(0)
    return deleted
