"""Who holds what we want: the process behind a UDP port or a TAP, read from /proc.

For error texts only; nothing here is on a packet's way. Processes that end while they are looked
at, or belong to somebody else, are passed over.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["tap_owner", "udp_owner"]

_PROC = Path("/proc")


def udp_owner(port: int) -> str | None:
    """Name the process of this network namespace that has a UDP port, as ``nginx (pid 42)``.

    Returns:
        None when no process holds a socket with that port: then the kernel itself does.
    """
    inodes = {f"socket:[{inode}]" for inode in _udp_inodes(port)}
    return _youngest(lambda fd: str(fd.readlink()) in inodes) if inodes else None


def tap_owner(name: str) -> str | None:
    """Name the process that holds the TAP called ``name`` open, or None."""
    line = re.compile(rf"^iff:\s*{re.escape(name)}$", re.MULTILINE)

    def holds(fd: Path) -> bool:
        if str(fd.readlink()) != "/dev/net/tun":
            return False
        return bool(line.search((fd.parents[1] / "fdinfo" / fd.name).read_text()))

    return _youngest(holds)


def _udp_inodes(port: int) -> Iterator[str]:
    for table in ("udp", "udp6"):
        try:
            lines = (_PROC / "self/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            local_port, inode = int(fields[1].rpartition(":")[2], 16), fields[9]
            if local_port == port and inode != "0":
                yield inode


def _youngest(matches: Callable[[Path], bool]) -> str | None:
    """Name the last of the processes that match.

    A service manager that keeps a duplicate of the descriptor is older than who uses it.
    """
    for process in sorted(_PROC.glob("[0-9]*"), key=_start_time, reverse=True):
        try:
            if any(matches(fd) for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue
    return None


def _start_time(process: Path) -> int:
    """Return when a process was started, in clock ticks; 0 when it is gone."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0
