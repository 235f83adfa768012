"""The daemon's memory: neither Python nor the C library keeps what nobody needs.

pyroute2's sockets and messages hold each other: plugging a pod leaves 1400 objects that only a full
collection frees. Python puts that off until such objects are a quarter of all that survived the one
before, and the libraries alone are 82,000. So it comes after hundreds of reloads, stops packets for
35 ms, and until then garbage lies between what is in use: the C library can give nothing back, in
the arena of each thread anew.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Garbage", "freeze", "thaw", "use_one_arena"]

_M_ARENA_MAX = -8
_COST_S = 0.001
"""Of collections, a reload on average."""


def use_one_arena() -> None:
    """Have all threads allocate from one heap, so that each uses what others freed.

    To be called before there are threads. They hold the GIL where they allocate, so none waits for
    another; C libraries other than glibc have no such choice to make.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def freeze() -> None:
    """Leave what there is now out of all collections: it stays to the end."""
    gc.freeze()
    gc.collect()  # of nothing, for Python to know how little is left


def thaw() -> None:
    """Take ``freeze`` back."""
    gc.unfreeze()


class Garbage:
    """Collects what reloads leave, in a process that was frozen; in others it is Python's to do.

    That takes 0.3 ms, and 0.8 where a node has a thousand rows. After one that took longer, a
    reload for each of its milliseconds goes without.
    """

    def __init__(self) -> None:
        self._pause = 0
        """Reloads to pass over."""

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Free what reference cycles keep when the context ends, in whatever way."""
        try:
            yield
        finally:
            self._collect()

    def _collect(self) -> None:
        if self._pause > 0:
            self._pause -= 1
        elif gc.get_freeze_count() > 0:
            began = time.thread_time()
            gc.collect()
            self._pause = int((time.thread_time() - began) / _COST_S)
