"""What systemd is told: ready, reloading, stopping, one line of status, and the watchdog's food.

The protocol of sd_notify(3), over the datagram socket that ``NOTIFY_SOCKET`` names; without one
everything here is silent. Knows nothing of the datapath: whether packets move, a function says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Notifier", "keep_telling"]

_STATUS_S = 2.5
"""How often the status line is looked at where no watchdog asks for more: each look wakes a daemon
that may have nothing else to do."""


class Notifier:
    """The service manager's ear.

    Args:
        address: of its socket, ``@`` first for an abstract one; None = nobody listens.
        watchdog_s: seconds after which a silent daemon is killed; 0 = never.
    """

    def __init__(self, address: str | None = None, watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s
        self._address = address
        self._status = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """Find the manager in the environment, and how often it wants to hear of us.

        What is not for this process (``WATCHDOG_PID``) or no number is as if it were not set.
        """
        watchdog = environ.get("WATCHDOG_USEC", "")
        usec = int(watchdog) if watchdog.isascii() and watchdog.isdigit() else 0
        if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            usec = 0
        return cls(environ.get("NOTIFY_SOCKET") or None, usec / 1e6)

    @property
    def is_heard(self) -> bool:
        """Whether there is a manager at all."""
        return self._address is not None

    def ready(self) -> None:
        """Say that packets flow and clients are answered."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Show one line in ``systemctl status``; a line that stands there already is not sent."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that a reload runs, and when it is over; whether it was refused is the caller's.

        ``MONOTONIC_USEC`` is for systemd 253 and newer, older ones pass over it.
        """
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={usec}")
        try:
            yield
        finally:
            self.ready()

    def _send(self, text: str) -> None:
        """Send a message or lose it: a manager that is gone or slow must not stop packets."""
        if self._address is None:
            return
        where = self._address
        if where.startswith("@"):
            where = "\0" + where[1:]
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock,
        ):
            sock.sendto(text.encode(), where)


async def keep_telling(
    notifier: Notifier, status: Callable[[], str], progress: Callable[[], bool]
) -> None:
    """Keep the status line true and the watchdog fed, for ever.

    Args:
        notifier: who is told.
        status: the line.
        progress: whether the datapath has moved since it was asked last, or had nothing to do. The
            watchdog gets nothing while it has not, however well this loop runs.
    """
    pause_s = _STATUS_S
    if notifier.watchdog_s:
        pause_s = min(pause_s, notifier.watchdog_s / 4)
    while True:
        notifier.status(status())
        if notifier.watchdog_s and progress():
            notifier.alive()
        await asyncio.sleep(pause_s)
