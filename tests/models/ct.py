"""Slow twin of csrc/tables/ct.c: conntrack as datapath reference section 3 [C] words it.

Dictionaries and tuples, no hashing, no bits packed, nothing shared with the C code. Where the
reference leaves a choice (which entry of a full map goes) the twin says which ones are allowed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = ["CtTwin", "Entry", "Key", "Limits", "Packet", "State", "load"]

NEW, ESTABLISHED, REPLY, RELATED = range(4)
NONE, CREATE, CLOSE = range(3)
OUT, IN, RELATED_BIT, SERVICE = 0, 1, 2, 4
FIN, SYN, RST = 1, 2, 4
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
CAPTURE = 128
COPIED_FLAGS = 8 | 32 | 64 | 128 | 256 | 1024
NODE_PORT = 32
REBALANCE_S = 30


class Key(NamedTuple):
    """A tuple; ports as the 16-bit numbers that lie in the packet."""

    daddr: bytes
    saddr: bytes
    dport: int
    sport: int
    proto: int
    flags: int = 0

    def reverse(self) -> Key:
        """Return the other direction, flags untouched."""
        return self._replace(daddr=self.saddr, saddr=self.daddr, dport=self.sport, sport=self.dport)


@dataclass(frozen=True)
class Packet:
    """What the wire says of a packet; ``sport`` and ``dport`` natural."""

    saddr: bytes
    daddr: bytes
    proto: int
    sport: int = 0
    dport: int = 0
    family: int = 4
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_id: int = 0
    later_fragment: bool = False
    truncated: bool = False
    len: int = 100


@dataclass(frozen=True)
class State:
    """The fields copied into an entry and out of it."""

    src_identity: int = 0
    backend_id: int = 0
    rev_nat_id: int = 0
    ifindex: int = 0
    flags: int = 0


@dataclass(frozen=True)
class Limits:
    """Lifetimes in seconds."""

    tcp: int = 8000
    syn: int = 60
    close: int = 10
    other: int = 60
    service_tcp: int = 7000
    service_other: int = 70
    report: int = 5


@dataclass
class Entry:
    """A value, field by field."""

    state: State
    expires: int = 0
    rx_closing: bool = False
    tx_closing: bool = False
    seen_non_syn: bool = False
    packets: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    seen: tuple[int, int] = (0, 0)
    reported: tuple[int, int] = (0, 0)

    @property
    def alive(self) -> bool:
        """Whether ordinary packets refresh it."""
        return not (self.rx_closing and self.tx_closing)

    @property
    def closing(self) -> bool:
        """Whether a FIN or RST was seen."""
        return self.rx_closing or self.tx_closing


def load(packet: Packet) -> tuple[int, Key, int, int]:
    """Return ``(drop, unflipped key, tcp flags, action)`` as 3.1 and 3.3 have it."""
    key = Key(packet.daddr, packet.saddr, 0, 0, packet.proto)
    icmp = ICMPV6 if packet.family == 6 else ICMP
    if packet.proto not in {TCP, UDP, SCTP, icmp}:
        return 137, key, 0, NONE
    if packet.truncated and not packet.later_fragment:
        return 135, key, 0, NONE
    if packet.proto == icmp:
        return 0, *_load_icmp(packet, key)
    key = key._replace(dport=packet.sport, sport=packet.dport)
    if packet.proto != TCP or packet.later_fragment:
        return 0, key, 0, NONE
    action = CREATE if packet.tcp_flags & SYN else NONE
    return 0, key, packet.tcp_flags, CLOSE if packet.tcp_flags & (FIN | RST) else action


def _load_icmp(packet: Packet, key: Key) -> tuple[Key, int, int]:
    kinds = {
        4: {"request": {8}, "reply": {0}, "error": {3, 11, 12}},
        6: {"request": {128}, "reply": {129}, "error": {1, 2, 3, 4}},
    }[packet.family]
    if packet.icmp_type in kinds["request"]:
        return key._replace(dport=packet.icmp_id), 0, CREATE
    if packet.icmp_type in kinds["reply"]:
        return key._replace(sport=packet.icmp_id), 0, NONE
    if packet.icmp_type in kinds["error"]:
        return key._replace(flags=RELATED_BIT), 0, NONE
    return key, 0, CREATE


def _set(pair: tuple[int, int], side: int, value: int) -> tuple[int, int]:
    return (value, pair[1]) if side == 0 else (pair[0], value)


class CtTwin:
    """Both maps; ``entries`` in the order of creation."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self.limits = limits
        self.entries: dict[Key, Entry] = {}

    def map_of(self, *, tcp: bool) -> dict[Key, Entry]:
        """Return the entries of one map."""
        return {key: e for key, e in self.entries.items() if (key.proto == TCP) == tcp}

    def _refresh(self, key: Key, entry: Entry, hook: str, flags: int, now: int) -> int:
        limits = self.limits
        service = hook == "service"
        lifetime = limits.service_other if service else limits.other
        if key.proto == TCP:
            entry.seen_non_syn |= not flags & SYN
            lifetime = limits.service_tcp if service else limits.tcp
            lifetime = lifetime if entry.seen_non_syn else limits.syn
        return self._expire_in(entry, lifetime, hook, flags, now)

    def _expire_in(self, entry: Entry, lifetime: int, hook: str, flags: int, now: int) -> int:
        entry.expires = now + lifetime
        side = 0 if hook == "ingress" else 1
        grown = entry.seen[side] | flags
        if entry.reported[side] + self.limits.report < now or grown != entry.seen[side]:
            entry.seen = _set(entry.seen, side, grown)
            entry.reported = _set(entry.reported, side, now)
            return CAPTURE
        return 0

    def _count(self, entry: Entry, hook: str, length: int) -> None:
        side = 0 if hook == "ingress" else 1
        entry.packets = _set(entry.packets, side, entry.packets[side] + 1)
        entry.bytes = _set(entry.bytes, side, entry.bytes[side] + length)

    def _close(self, entry: Entry, hook: str, flags: int, now: int) -> None:
        both_syns = entry.seen[0] & SYN and entry.seen[1] & SYN
        if hook == "service" or (flags & RST and not both_syns):
            entry.rx_closing = entry.tx_closing = True
        elif hook == "ingress":
            entry.rx_closing = True
        else:
            entry.tx_closing = True
        if not entry.alive:
            self._expire_in(entry, self.limits.close, hook, flags, now)

    def _step(
        self, key: Key, hook: str, flags: int, action: int, length: int, now: int
    ) -> tuple[bool, int, State | None]:
        entry = self.entries.get(key)
        if entry is None:
            return False, CAPTURE, None
        syn_on_closing = bool(flags & SYN) and entry.closing
        rebalance = entry.reported[1] + REBALANCE_S <= now
        if hook == "service" and syn_on_closing and rebalance:
            return False, CAPTURE, None
        monitor = self._refresh(key, entry, hook, flags, now) if entry.alive else 0
        self._count(entry, hook, length)
        if syn_on_closing and action == CREATE:
            entry.rx_closing = entry.tx_closing = entry.seen_non_syn = False
            entry.seen = (0, 0)
            self._refresh(key, entry, hook, flags, now)
            return False, CAPTURE, None
        if action == CLOSE:
            self._close(entry, hook, flags, now)
            monitor = CAPTURE
        return True, monitor, entry.state

    def lookup(
        self, packet: Packet, hook: str, scope: str, now: int
    ) -> tuple[int, Key, int, State | None]:
        """Return ``(status, key left behind, monitor, state at a hit)`` as 3.2 has it."""
        _, key, flags, action = load(packet)
        related = key.flags & RELATED_BIT
        if hook == "service":
            key = key._replace(flags=SERVICE)
            hit, monitor, state = self._step(key, hook, flags, action, packet.len, now)
            return (REPLY if hit else NEW), key, monitor, state
        if scope != "forward":
            key = key._replace(flags=related | (OUT if hook == "ingress" else IN))
            hit, monitor, state = self._step(key, hook, flags, action, packet.len, now)
            if hit:
                return (RELATED if related else REPLY), key, monitor, state
        if scope != "reverse":
            key = key.reverse()._replace(flags=related | (IN if hook == "ingress" else OUT))
            hit, monitor, state = self._step(key, hook, flags, action, packet.len, now)
            if hit:
                return ESTABLISHED, key, monitor, state
        return NEW, key, CAPTURE, None

    def planned(
        self, key: Key, hook: str, length: int, now: int, state: State
    ) -> list[tuple[Key, Entry]]:
        """Return what a create would write, in order; the caller says what fitted."""
        if hook == "service":
            kept = replace(state, ifindex=0, flags=0)
        else:
            kept = replace(state, backend_id=0, flags=state.flags & COPIED_FLAGS)
        writes = [key]
        to_backend = hook == "egress" and state.flags & NODE_PORT
        if hook != "service" and not to_backend:
            icmp = ICMP if key.daddr.startswith(bytes(10) + b"\xff\xff") else ICMPV6
            companion = key._replace(dport=0, sport=0, proto=icmp, flags=key.flags | RELATED_BIT)
            writes.insert(0, companion)
        planned = []
        for target in writes:
            entry = Entry(kept)
            # The companion is a copy: the lifetime is that of the main entry's protocol.
            self._refresh(key, entry, hook, SYN if key.proto == TCP else 0, now)
            self._count(entry, hook, length)
            planned.append((target, entry))
        return planned

    def allowed_victims(self, now: int, *, tcp: bool) -> set[Key]:
        """Return what a full map may lose: what has expired, else what nobody answered."""
        entries = self.map_of(tcp=tcp)
        expired = {key for key, entry in entries.items() if entry.expires < now}
        if expired:
            return expired
        return {key for key, entry in entries.items() if self._half_open(key, entry)}

    @staticmethod
    def _half_open(key: Key, entry: Entry) -> bool:
        if key.flags == SERVICE:
            return key.proto == TCP and not entry.seen_non_syn
        if not entry.alive:
            return True
        answered = all(entry.packets) and not key.flags & RELATED_BIT
        return not answered or (key.proto == TCP and not entry.seen_non_syn)

    def sweep(self, now: int) -> int:
        """Delete what has expired; return how many."""
        expired = [key for key, entry in self.entries.items() if entry.expires < now]
        for key in expired:
            del self.entries[key]
        return len(expired)

    def purge(self, addr: bytes) -> int:
        """Delete what has ``addr`` on either side; return how many."""
        touched = [key for key in self.entries if addr in {key.saddr, key.daddr}]
        for key in touched:
            del self.entries[key]
        return len(touched)
