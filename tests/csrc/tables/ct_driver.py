"""The C conntrack behind the twin's vocabulary: keys, entries and packets of tests.models.ct."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from tests.csrc.internal import internal
from tests.models.ct import Entry, Key, Limits, Packet, State

__all__ = ["CAPACITIES", "CtDriver", "fill_params", "one_driver"]

HOOKS = {"egress": 0, "ingress": 1, "service": 2}
SCOPES = {"bidir": 0, "forward": 1, "reverse": 2}
BOOT_ID = bytes(range(16))
CAPACITIES = (
    *("ipcache", "endpoints", "lxc", "policy", "peers", "fragments", "events"),
    *("services", "backends", "slots", "affinity", "nat", "source_ranges", "maglev"),
)
"""Of struct fwd_params, beside those of conntrack."""


def fill_params(params: Any, *, ct: int = 64) -> None:
    """Write small capacities that are all valid."""
    for name in CAPACITIES:
        setattr(params, name, 16)
    params.ct_tcp = params.ct_any = ct
    params.hash_seed = 0x5EED
    params.boot_id = BOOT_ID


def _swap(port: int) -> int:
    return (port & 0xFF) << 8 | port >> 8


class CtDriver:
    """One arena on a memfd; times are seconds."""

    def __init__(self, cap: int, limits: Limits) -> None:
        """Create it with ``cap`` entries a map."""
        self.ffi, self.lib = internal()
        self.fd = os.memfd_create("fwd-test-ct")
        params = self.ffi.new("struct fwd_params *")
        fill_params(params, ct=cap)
        self.error = self.ffi.new("struct fwd_error *")
        self.dp = self.lib.fwd_dp_create(params, self.fd, self.error)
        assert self.dp, self.ffi.string(self.error.message)
        settings = self.ffi.new("struct fwd_settings *")
        settings.ct_tcp_s, settings.ct_tcp_syn_s = limits.tcp, limits.syn
        settings.ct_tcp_close_s, settings.ct_any_s = limits.close, limits.other
        settings.ct_service_tcp_s = limits.service_tcp
        settings.ct_service_any_s = limits.service_other
        settings.ct_report_interval_s = limits.report
        self.lib.fwd_dp_settings_set(self.dp, settings)

    def close(self) -> None:
        """Unmap the arena and close its memfd."""
        self.lib.fwd_dp_close(self.dp)
        os.close(self.fd)

    def reattach(self) -> int:
        """Leave the arena and attach it again; return the torn entries."""
        self.lib.fwd_dp_close(self.dp)
        torn = self.ffi.new("uint32_t *")
        self.dp = self.lib.fwd_dp_attach(self.fd, BOOT_ID, torn, self.error)
        assert self.dp, self.ffi.string(self.error.message)
        return int(torn[0])

    def load(self, packet: Packet, now: int = 0) -> tuple[int, Any, Any]:
        """Return ``(drop, struct ct_tuple *, struct ct_packet *)``."""
        parsed = self.ffi.new("struct parsed *")
        parsed.saddr.b, parsed.daddr.b = packet.saddr, packet.daddr
        parsed.sport, parsed.dport = _swap(packet.sport), _swap(packet.dport)
        parsed.icmp_id, parsed.icmp_type = _swap(packet.icmp_id), packet.icmp_type
        parsed.family, parsed.proto = packet.family, packet.proto
        parsed.tcp_flags = packet.tcp_flags
        parsed.fragment = parsed.later_fragment = packet.later_fragment
        parsed.has_l4 = not packet.truncated and not packet.later_fragment
        tuple_ = self.ffi.new("struct ct_tuple *")
        wire = self.ffi.new("struct ct_packet *", {"len": packet.len, "now_s": now})
        return self.lib.ct_tuple_load(parsed, tuple_, wire), tuple_, wire

    def hash(self, tuple_: Any) -> int:
        """Return the hash both directions share."""
        return int(self.lib.ct_hash(self.dp.ct.seed, tuple_))

    def lookup(
        self, packet: Packet, hook: str, scope: str, now: int
    ) -> tuple[int, Key, int, State]:
        """Return ``(status, key left behind, monitor, state)``."""
        _, tuple_, wire = self.load(packet, now)
        state = self.ffi.new("struct ct_state *")
        monitor = self.ffi.new("uint32_t *")
        status = self.lib.ct_lookup(
            self.ffi.addressof(self.dp.ct), self.dp.settings, tuple_, self.hash(tuple_),
            HOOKS[hook], SCOPES[scope], wire, state, monitor,
        )  # fmt: skip
        found = State(
            state.src_identity, state.backend_id, state.rev_nat_id, state.ifindex, state.flags
        )
        return status, key_of(tuple_), int(monitor[0]), found

    def create(self, key: Key, hook: str, length: int, now: int, state: State) -> int:
        """Return 0 or 155."""
        tuple_ = self.ffi.new("struct ct_tuple *")
        tuple_.daddr.b, tuple_.saddr.b = key.daddr, key.saddr
        tuple_.dport, tuple_.sport = _swap(key.dport), _swap(key.sport)
        tuple_.proto, tuple_.flags = key.proto, key.flags
        wire = self.ffi.new("struct ct_packet *", {"len": length, "now_s": now})
        fields = self.ffi.new("struct ct_state *")
        for name in ("src_identity", "backend_id", "rev_nat_id", "ifindex", "flags"):
            setattr(fields, name, getattr(state, name))
        ct, hashed = self.ffi.addressof(self.dp.ct), self.hash(tuple_)
        return int(
            self.lib.ct_create(ct, self.dp.settings, tuple_, hashed, HOOKS[hook], wire, fields)
        )

    def rows(self, *, tcp: bool, page: int = 7) -> dict[Key, Entry]:
        """Dump one map by cursor, ``page`` rows a call."""
        rows = self.ffi.new("struct fwd_ct_row[]", page)
        cursor = self.ffi.new("uint64_t *")
        found: dict[Key, Entry] = {}
        while True:
            n = self.lib.fwd_ct_dump(self.dp, 0 if tcp else 1, cursor, rows, page)
            for row in rows[0:n]:
                assert key_of(row) not in found
                found[key_of(row)] = _entry_of(row)
            if cursor[0] == 0:
                return found

    def walk(self, function: Any, *args: Any, budget: int = 5) -> int:
        """Run a sweep or purge over both maps, ``budget`` entries a call; return the deleted."""
        deleted = 0
        for name in (0, 1):
            cursor = self.ffi.new("uint64_t *")
            while True:
                deleted += function(self.dp, name, *args, cursor, budget)
                if cursor[0] == 0:
                    break
        return deleted

    def stats(self, *, tcp: bool) -> Any:
        """Return ``struct fwd_table_stats``."""
        stats = self.ffi.new("struct fwd_table_stats *")
        self.lib.fwd_table_stats(self.dp, 0 if tcp else 1, stats)
        return stats


def key_of(row: Any) -> Key:
    """Return the twin's key of a ``struct ct_tuple`` or ``struct fwd_ct_row``."""
    flags = row.tuple_flags if hasattr(row, "tuple_flags") else row.flags
    return Key(
        bytes(row.daddr.b), bytes(row.saddr.b), _swap(row.dport), _swap(row.sport), row.proto, flags
    )


def _entry_of(row: Any) -> Entry:
    state = State(
        row.src_identity, row.backend_id, row.rev_nat_id, row.ifindex, row.flags & ~(1 | 2 | 16)
    )
    return Entry(
        state=state,
        expires=row.expires_s,
        rx_closing=bool(row.flags & 1),
        tx_closing=bool(row.flags & 2),
        seen_non_syn=bool(row.flags & 16),
        packets=(row.rx_packets, row.tx_packets),
        bytes=(row.rx_bytes, row.tx_bytes),
        seen=(row.rx_flags_seen, row.tx_flags_seen),
        reported=(row.last_rx_report_s, row.last_tx_report_s),
    )


@cache
def one_driver() -> CtDriver:
    """Return one driver for all examples of tests that store nothing."""
    return CtDriver(1, Limits())
