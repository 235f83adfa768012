"""The asyncio side of the pump (D10): one watched descriptor, one C call a wake-up.

Works on uvloop and on asyncio's own loops. No packet passes here but the few that the datapath
punts; answering those is the caller's.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from typing import TYPE_CHECKING

from fwd.datapath.binding import Pump

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwd.datapath.binding import Datapath, Punt

__all__ = ["BUDGET_NS", "LINGER_NS", "PUNTS_PER_TURN", "PumpLoop"]

BUDGET_NS = 2_000_000
"""Longest time one wake-up keeps the loop from everything else."""
LINGER_NS = 200_000
"""How long a wake-up that found work waits for more: under load Python runs about once a
budget instead of once a batch."""
PUNTS_PER_TURN = 16
"""Frames answered before the loop gets its turn: about half a millisecond."""


class PumpLoop:
    """Runs a pump on the running event loop.

    Args:
        dp: the datapath packets go through; it must outlive the loop.
        on_punt: makes the answer to a punted frame, to be written to the port it came from;
            None is silence.
        on_gone: told the port of a device that vanished; the pump has let go of it.
    """

    def __init__(
        self,
        dp: Datapath,
        on_punt: Callable[[Punt], bytes | None],
        on_gone: Callable[[int], None],
    ) -> None:
        self.pump = Pump(dp)
        self.punt_write_errors = 0
        """Answers a TAP refused: its pod went away in between."""
        self._on_punt = on_punt
        self._on_gone = on_gone
        self._punts: deque[Punt] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rest: asyncio.Handle | None = None
        self._again: asyncio.Handle | None = None
        self._turns = 0
        self._turns_seen = 0
        self._moved: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin to move packets; needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.pump.epoll_fd, self._wake)

    def report_to(
        self, on_punt: Callable[[Punt], bytes | None], on_gone: Callable[[int], None]
    ) -> None:
        """Have others answer and be told from now on; arguments as for the class."""
        self._on_punt, self._on_gone = on_punt, on_gone

    def pause(self) -> None:
        """Stop moving packets: they wait where they are; no device is taken for gone."""
        if self._loop is not None:
            self._loop.remove_reader(self.pump.epoll_fd)
            self._loop = None
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def close(self) -> None:
        """Stop moving packets and free the pump; the descriptors added to it stay open."""
        self.pause()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        self.pump.close()

    async def moved(self, timeout_s: float | None = None) -> None:
        """Wait until packets move: what only they change need not be looked at before.

        Args:
            timeout_s: the longest wait; None = for ever.
        """
        if self._moved is None:
            self._moved = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._moved}, timeout=timeout_s)

    def move_waiting(self) -> None:
        """Move, out of turn, packets that wait, for a budget at most; started or not."""
        self.pump.run(BUDGET_NS, 0)
        if self._loop is not None:  # else the first turn will
            self._look_after()

    def progress(self) -> bool:
        """Tell whether packets move, for a watchdog: True also when none wait.

        False when packets wait and nobody has looked at them since the last call.
        """
        seen, self._turns_seen = self._turns_seen, self._turns
        if self._turns != seen:
            return True
        look = select.poll()
        look.register(self.pump.epoll_fd, select.POLLIN)
        return not look.poll(0)

    def _wake(self) -> None:
        self._turns += 1
        if self._moved is not None:
            self._moved.set_result(None)
            self._moved = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self.pump.run(BUDGET_NS, LINGER_NS)
        if self.pump.eager and self._loop is not None:
            self._again = self._loop.call_soon(self._wake)  # others had their turn by then
        self._look_after()

    def _look_after(self) -> None:
        """See to what the packets that moved have left to do."""
        if not self._punts:  # so that what waits here is never more than the C ring holds
            self._punts.extend(self.pump.punts())
        if self._punts and self._rest is None:
            self._answer()
        self._report_gone()

    def _answer(self) -> None:
        """Answer some punts; what is left waits for its next turn, packets go first."""
        self._rest = None
        for _ in range(min(PUNTS_PER_TURN, len(self._punts))):
            punt = self._punts.popleft()
            frame = self._on_punt(punt)
            if frame is None:
                continue
            try:
                self.pump.write(punt.port, frame)
            except OSError:
                self.punt_write_errors += 1
        if self._punts and self._loop is not None:
            self._rest = self._loop.call_soon(self._answer)

    def tell_gone(self, port: int) -> None:
        """Pass on that a device vanished before anybody was there to be told."""
        self._on_gone(port)

    def _report_gone(self) -> None:
        while ports := self.pump.gone():
            for port in ports:
                self._on_gone(port)
