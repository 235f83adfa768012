"""Long answers leave the CPU to packets: what is listed for minutes must not delay them.

Reading a table of a million rows keeps a core busy for many seconds. Beside a daemon that answers
to every packet on one of few cores, that would be felt by each pod.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

__all__ = ["AT_ONCE", "in_background"]

AT_ONCE = 1024
"""Rows that come with the priority the command was started with: what a person reads."""
_Row = TypeVar("_Row")


def in_background(rows: Iterable[_Row]) -> Iterator[_Row]:
    """Pass rows on; after ``AT_ONCE`` of them this thread runs only where a CPU has nothing else.

    Who has set another policy than the usual one keeps it.
    """
    rest = iter(rows)
    yield from islice(rest, AT_ONCE)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield from rest
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield from rest
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
