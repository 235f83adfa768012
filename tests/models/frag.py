"""Slow twin of csrc/tables/frag.c: an ordered dict, the least recently used datagram first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

__all__ = ["FragModel"]

Ports = tuple[int, int]


@dataclass
class FragModel:
    """Datagram to ports; when ``cap`` is reached the least recently used one goes."""

    cap: int
    datagrams: OrderedDict[bytes, Ports] = field(default_factory=OrderedDict)
    evictions: int = 0

    def store(self, key: bytes, ports: Ports) -> None:
        """Remember the datagram's ports."""
        if key not in self.datagrams and len(self.datagrams) == self.cap:
            self.datagrams.popitem(last=False)
            self.evictions += 1
        self.datagrams[key] = ports
        self.datagrams.move_to_end(key)

    def fetch(self, key: bytes) -> Ports | None:
        """Return the datagram's ports, None when it is not known; a hit counts as use."""
        if key not in self.datagrams:
            return None
        self.datagrams.move_to_end(key)
        return self.datagrams[key]
