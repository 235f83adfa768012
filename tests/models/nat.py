"""Slow twin of csrc/tables/nat.c: an ordered dict of mappings, the least recently used first.

Which port is drawn is the table's own affair; the twin says which ports may be.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Flow", "NatModel"]

Peer = tuple[int, str, int]
"""Protocol, destination address and port."""
Source = tuple[str, int]

PORTS = range(32768, 65536)


@dataclass(frozen=True)
class Flow:
    """An outgoing packet before translation."""

    proto: int
    saddr: str
    sport: int
    daddr: str
    dport: int

    @property
    def peer(self) -> Peer:
        """Toward whom a port must be unique."""
        return self.proto, self.daddr, self.dport


@dataclass
class NatModel:
    """Flow to the source it is sent under."""

    cap: int
    """Halves; a mapping has two."""
    mappings: OrderedDict[Flow, Source] = field(default_factory=OrderedDict)
    evictions: int = 0

    def taken(self, peer: Peer, behind: str) -> set[int]:
        """Ports in use toward a peer under one address."""
        return {
            port
            for flow, (addr, port) in self.mappings.items()
            if (flow.peer, addr) == (peer, behind)
        }

    def allowed(self, flow: Flow, behind: str) -> set[int]:
        """Ports that the next ``map`` of the flow may answer with."""
        known = self.mappings.get(flow)
        if known is not None and known[0] == behind:
            return {known[1]}
        taken = self.taken(flow.peer, behind)
        if flow.sport in PORTS and flow.sport not in taken:
            return {flow.sport}
        return set(PORTS) - taken

    def map(self, flow: Flow, behind: str, port: int) -> None:
        """Note that the flow is sent under ``behind`` and ``port``."""
        known = self.mappings.get(flow)
        if known is not None and known[0] != behind:
            del self.mappings[flow]
        if flow not in self.mappings:
            while 2 * len(self.mappings) + 2 > self.cap:
                self.mappings.popitem(last=False)
                self.evictions += 1
        self.mappings[flow] = behind, port
        self.mappings.move_to_end(flow)

    def sweep(self, tracked: Callable[[Flow], bool]) -> int:
        """Forget the flows that conntrack does not know; return how many."""
        gone = [flow for flow in self.mappings if not tracked(flow)]
        for flow in gone:
            del self.mappings[flow]
        return len(gone)

    def outgoing(self, flow: Flow) -> Source | None:
        """What the flow is sent under; a hit counts as use."""
        if flow not in self.mappings:
            return None
        self.mappings.move_to_end(flow)
        return self.mappings[flow]

    def incoming(self, proto: int, peer: Source, own: Source) -> Source | None:
        """Whom an answer of ``peer`` to ``own`` is for; a hit counts as use."""
        for flow, target in self.mappings.items():
            if (flow.peer, target) == ((proto, *peer), own):
                self.mappings.move_to_end(flow)
                return flow.saddr, flow.sport
        return None
