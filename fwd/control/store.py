"""systemd's descriptor store: what a restarted daemon finds again (sd_notify(3), FDSTORE).

The manager keeps a duplicate of each descriptor put there while the service restarts, however its
process ended, and closes them when the service is stopped for good. Without a store everything here
is silent. Stdlib only: it is loaded before anything else, while packets wait.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ARENA", "TUNNEL", "Store"]

ARENA = "arena"
TUNNEL = "tunnel"
"""Names of what there is one of."""
_SEND_S = 1.0
"""How long a busy manager is waited for: a descriptor it never gets is lost at the next restart."""
_SETTLE_S = 5.0
_ASK_S = 3.0


class Store:
    """The manager's descriptors of this service.

    Args:
        address: of the manager's socket, ``@`` first for an abstract one; None = nobody listens.
        size: descriptors it takes, 0 = there is no store.
        unit: the service's name there, "" = not known.
    """

    def __init__(self, address: str | None = None, size: int = 0, unit: str = "") -> None:
        self._address = address
        self._unit = unit
        self.present = bool(address) and size > 0
        self.names: set[str] = set()
        """What is in it, as far as we know."""
        self.failed = 0
        """Messages the manager did not take."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Store:
        """Find the store: ``FDSTORE`` tells its size, from systemd 254 on or by our unit."""
        size = environ.get("FDSTORE", "")
        return cls(
            environ.get("NOTIFY_SOCKET") or None,
            int(size) if size.isascii() and size.isdigit() else 0,
            environ.get("FWD_UNIT", ""),
        )

    def put(self, name: str, fd: int) -> None:
        """Have a descriptor kept; it stays the caller's, too.

        ``FDPOLL=0``: a TAP that is down looks hung up, and must not be dropped for it.
        """
        if self.present:
            self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)
            self.names.add(name)

    def drop(self, name: str) -> None:
        """Have what is kept under a name closed; nothing there is fine."""
        if self.present:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")
            self.names.discard(name)

    def settle(self) -> bool:
        """Wait until the manager has done all it was told, at most five seconds.

        Blocks: call it in a thread.

        Returns:
            Whether it has.
        """
        if not self.present:
            return True
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._send("BARRIER=1", theirs)
        finally:
            os.close(theirs)
        try:
            poll = select.poll()
            poll.register(ours, 0)
            return bool(poll.poll(_SETTLE_S * 1000))
        finally:
            os.close(ours)

    async def ends_for_good(self) -> bool:
        """Tell whether the service is being stopped, not restarted.

        Only the manager's queue of jobs knows. Where it cannot be asked the answer is False: what
        is left then is closed by the manager if this was a stop.
        """
        if not self.present:
            return True
        if not self._unit:
            return False
        command = ("systemctl", "list-jobs", "--plain", "--no-legend", "--no-pager")
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError:
            return False
        try:
            async with asyncio.timeout(_ASK_S):
                output, _ = await process.communicate()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return False
        jobs = (line.split() for line in output.decode(errors="replace").splitlines())
        return any(job[1:3] == [self._unit, "stop"] for job in jobs)

    def _send(self, text: str, fd: int | None = None) -> None:
        where = self._address or ""
        if where.startswith("@"):
            where = "\0" + where[1:]
        rights = [] if fd is None else [_rights(fd)]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_S)
                sock.sendmsg([text.encode()], rights, 0, where)
        except OSError:
            self.failed += 1


def _rights(fd: int) -> tuple[int, int, array.array[int]]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd])
