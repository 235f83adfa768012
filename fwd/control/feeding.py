"""The watchdog's food, and the status line, of a daemon that forwards already and still starts.

`READY=1` is sent as soon as packets move again, and from then on the manager's watchdog runs; to
load the rest and to read the node file may take longer than that where somebody else has the CPU,
or where the door is waited for. Loads little: it is there before everything else.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fwd.control.notify import keep_telling

if TYPE_CHECKING:
    from fwd.control.notify import Notifier
    from fwd.control.revive import Revived

__all__ = ["Feeding"]

_TRY_S = 120.0
"""How long one try to start is fed, as long as ``TimeoutStartSec`` gives a first start."""
_STARTING = "forwarding with the tables of the daemon before, starting"


class Feeding:
    """Tells the manager, until ``stop``, that packets move and what is being waited for.

    Needs a running event loop; nothing is told where nobody listens.

    Args:
        revived: its pump moves the packets.
        notifier: the manager.
    """

    def __init__(self, revived: Revived, notifier: Notifier) -> None:
        self._revived = revived
        self._notifier = notifier
        self._status = _STARTING
        self._since: float | None = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        if notifier.is_heard:
            telling = keep_telling(notifier, lambda: self._status, self._progress)
            self._task = asyncio.get_running_loop().create_task(telling, name="fwd-feeding")

    def trying(self) -> None:
        """Say that a try to start begins; it has its time from now on."""
        self._status = _STARTING
        self._since = time.monotonic()

    def waiting(self, status: str) -> None:
        """Say what the start waits for, however long that takes."""
        self._status = status
        self._since = None
        self._notifier.status(status)

    def stop(self) -> None:
        """Leave it to others, or to nobody."""
        if self._task is not None:
            self._task.cancel()

    def _progress(self) -> bool:
        """Tell whether packets move and the start has not hung."""
        if self._since is not None and time.monotonic() - self._since > _TRY_S:
            return False
        pump = self._revived.pump
        return pump is None or not self._revived.running or pump.progress()
