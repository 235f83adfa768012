"""Descriptors that systemd hands over at the start (sd_listen_fds(3)): listeners, and stored ones.

``take`` is called once, at the start of a process, before anything else opens a descriptor.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["take"]

_FIRST_FD = 3
"""SD_LISTEN_FDS_START."""
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def take(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[int]]:
    """Take over what was handed to this process, and only to this one.

    Args:
        environ: the variables are removed from it, so that no child thinks they are its own.

    Returns:
        Name to descriptors, each closed on exec from now on and its taker's to close. Without names
        all are ``unknown``, as systemd calls them.
    """
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return found
    given = names.split(":") if names else []
    for index in range(int(count)):
        fd = _FIRST_FD + index
        os.set_inheritable(fd, False)
        found.setdefault(given[index] if index < len(given) else "unknown", []).append(fd)
    return found
