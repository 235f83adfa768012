"""The daemon's tables in a memfd, which stays open so that others can be mapped beside them."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fwd.datapath.binding import Datapath

if TYPE_CHECKING:
    from fwd.control.world import World

__all__ = ["Arena"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Arena:
    """An empty arena of a world's size; its seed is secret, so that hashes cannot be aimed.

    Args:
        world: for the capacities.

    Raises:
        DatapathError: the memory cannot be had.
    """

    dp: Datapath

    def __init__(self, world: World) -> None:
        seed = secrets.randbits(64)
        params = replace(world.params, hash_seed=seed, boot_id=_boot_id())
        self.memory = os.memfd_create("fwd-arena", os.MFD_CLOEXEC)
        """The memfd's descriptor."""
        try:
            self.dp = Datapath.create(params, self.memory)
        except BaseException:
            os.close(self.memory)
            raise

    @classmethod
    def adopt(cls, memory: int) -> tuple[Self, int]:
        """Take over the tables that another process has left in a memfd, with their seed.

        Args:
            memory: its descriptor; the caller's when this raises.

        Returns:
            The arena, and how many half-written entries were dropped.

        Raises:
            AttachError: they are of another build or boot, or damaged.
        """
        arena = cls.__new__(cls)
        arena.dp, torn = Datapath.attach(memory, _boot_id())
        arena.memory = memory
        return arena, torn

    def view(self) -> Datapath:
        """Return the tables as they are now, copy on write; the caller closes it.

        Valid until the next packet or change: use it at once, in the loop's thread.

        Raises:
            DatapathError: it cannot be mapped.
        """
        return self.dp.view(self.memory)

    def close(self) -> None:
        """Let go of the tables and their memory; a second call does nothing."""
        self.dp.close()
        if self.memory >= 0:
            os.close(self.memory)
            self.memory = -1


def _boot_id() -> bytes:
    return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))
