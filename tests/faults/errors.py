"""Orders for errors.c: which system calls of a daemon fail, how, and how often."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from tests.faults.compiler import compiled, preload

__all__ = ["CALLS", "Errors"]

CALLS = (
    "read", "writev", "sendmsg", "sendmmsg", "recvmmsg", "ppoll", "epoll_wait", "epoll_pwait2",
    "epoll_ctl", "TUNSETIFF", "TUNGETIFF", "TUNSETOFFLOAD", "TUNGETVNETHDRSZ", "TUNSETVNETHDRSZ",
)  # fmt: skip
"""As ``enum call`` of errors.c."""
RULE = struct.Struct("=IIIIQQ")
FOREVER = 2**32 - 1


class Errors:
    """The rules of the processes that run with ``env``.

    Args:
        directory: for the library and the rules.
    """

    def __init__(self, directory: Path) -> None:
        library = compiled("errors.c", directory, "-shared", "-fPIC")
        path = directory / "errors.rules"
        path.write_bytes(bytes(RULE.size * len(CALLS)))
        self._rules = _map(path)
        self.env = preload(library) | {"FWD_TEST_ERRORS": str(path)}
        """What a process needs in its environment."""

    @classmethod
    def attach(cls, path: str) -> Errors:
        """The rules of a file that exists, for a process that runs under them."""
        one = cls.__new__(cls)
        one._rules = _map(Path(path))
        return one

    def order(
        self, call: str, error: int, *, every: int = 1, times: int = FOREVER, trains: bool = False
    ) -> None:
        """Let a call fail from now on; counters begin anew.

        Args:
            call: its name in ``CALLS``.
            error: the errno; 0 = let it pass.
            every: only each such call.
            times: failures to give.
            trains: only sends with UDP_SEGMENT.
        """
        RULE.pack_into(self._rules, self._at(call), error, every, times, trains, 0, 0)

    def hits(self, call: str) -> int:
        """How many calls have failed since the order."""
        return int(RULE.unpack_from(self._rules, self._at(call))[5])

    def calls(self, call: str) -> int:
        """How many there were since the order."""
        return int(RULE.unpack_from(self._rules, self._at(call))[4])

    @staticmethod
    def _at(call: str) -> int:
        return RULE.size * CALLS.index(call)


def _map(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), RULE.size * len(CALLS))
