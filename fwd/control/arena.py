"""The daemon's tables in a memfd, which stays open so that others can be mapped beside them."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
        params = replace(
            world.params,
            hash_seed=secrets.randbits(64),
            boot_id=bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", "")),
        )
        self._memory = os.memfd_create("fwd-arena", os.MFD_CLOEXEC)
        try:
            self.dp = Datapath.create(params, self._memory)
        except BaseException:
            os.close(self._memory)
            raise

    def view(self) -> Datapath:
        """Return the tables as they are now, copy on write; the caller closes it.

        Valid until the next packet or change: use it at once, in the loop's thread.

        Raises:
            DatapathError: it cannot be mapped.
        """
        return self.dp.view(self._memory)

    def close(self) -> None:
        """Let go of the tables and their memory; a second call does nothing."""
        self.dp.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1
