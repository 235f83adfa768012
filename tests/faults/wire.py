"""Orders for wire.c: a wire between two namespaces of a lab that does not carry everything."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.compiler import compiled

if TYPE_CHECKING:
    from fwd.control.lab import Lab

__all__ = ["Wire"]

RULES = struct.Struct("=IIII")
COUNTERS = struct.Struct("=QQQQQQ")
NAMES = ("in", "out", "lost", "doubled", "late", "too_big")
"""As ``struct rules`` of wire.c."""


class Wire:
    """``eth0`` in two namespaces, joined by a process that runs as long as the lab.

    Args:
        lab: of both.
        ends: short names of the namespaces.
        addresses: theirs, with prefix length.
    """

    def __init__(self, lab: Lab, ends: tuple[str, str], addresses: tuple[str, str]) -> None:
        program = lab.directory / "wire"
        if not program.exists():
            compiled("wire.c", lab.directory)
        name = f"wire-{ends[0]}"
        path = lab.directory / f"{name}.rules"
        path.write_bytes(bytes(RULES.size + COUNTERS.size))
        with path.open("r+b") as file:
            self._rules = mmap.mmap(file.fileno(), RULES.size + COUNTERS.size)
        spaces = [str(Path("/run/netns") / lab.name(end)) for end in ends]
        lab.spawn(None, str(program), *spaces, str(path), log=f"{name}.log")
        lab.wait_for("the wire", lambda: "ready" in lab.log(f"{name}.log"))
        for end, address in zip(ends, addresses, strict=True):
            lab.ip("-n", lab.name(end), "addr", "add", address, "dev", "eth0")
            lab.ip("-n", lab.name(end), "link", "set", "eth0", "up")

    def order(
        self, *, loss: float = 0, twice: float = 0, reorder: float = 0, size_max: int = 0
    ) -> None:
        """Be bad from now on; without arguments be a good wire.

        Args:
            loss: share of frames that are lost, as are the others below.
            twice: that come twice.
            reorder: that come after the next three.
            size_max: largest IP datagram that passes, bytes; 0 = any.
        """
        parts = (round(one * 1_000_000) for one in (loss, twice, reorder))
        RULES.pack_into(self._rules, 0, *parts, size_max)

    def counters(self) -> dict[str, int]:
        """What became of the frames so far."""
        values = COUNTERS.unpack_from(self._rules, RULES.size)
        return dict(zip(NAMES, values, strict=True))
