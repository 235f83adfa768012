"""What can be asked of the tables of one arena: upsert, delete, look up, dump by cursor.

``Tables`` is the greater half of binding.py's ``Datapath``; it is given the extension and imports
none of it. Rows are values of fwd.model.rows, a refused row is a DatapathError with C's sentence.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from fwd.datapath import convert as to
from fwd.datapath import convert_outside as outside_to
from fwd.datapath.errors import DatapathError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fwd.model.rows import (
        Address,
        BackendRow,
        CtRow,
        EndpointRow,
        IpcacheRow,
        LxcRow,
        MaglevRow,
        MetricRow,
        NatRow,
        Network,
        PeerRow,
        PolicyRow,
        ServiceRow,
        SourceRangeRow,
        TableStats,
    )

__all__ = ["Tables", "error_text"]

_PAGE = 512


def error_text(ffi: Any, err: Any) -> str:
    """The sentence of a ``struct fwd_error *``."""
    return str(ffi.string(err.message).decode())


class Tables:
    """The tables of one arena. Not thread-safe: one loop owns it."""

    _ffi: ClassVar[Any]
    _lib: ClassVar[Any]
    _dp: Any

    @cached_property
    def _table_ids(self) -> dict[str, int]:
        names = ["ct_tcp", "ct_any", "ipcache", "endpoint", "lxc", "policy", "peer", "frag"]
        names += ["service", "backend", "affinity", "slot", "nat", "source_range", "maglev"]
        return {name: int(getattr(self._lib, f"FWD_TABLE_{name.upper()}")) for name in names}

    def _map(self, *, tcp: bool) -> int:
        return int(self._lib.FWD_MAP_CT_TCP if tcp else self._lib.FWD_MAP_CT_ANY)

    def _upsert(self, function: Callable[..., int], row: Any) -> None:
        err = self._ffi.new("struct fwd_error *")
        if function(self._dp, row, err) != 0:
            raise DatapathError(error_text(self._ffi, err))

    def _dump(self, function: Callable[..., int], kind: str, *args: int) -> Iterator[Any]:
        cursor = self._ffi.new("uint64_t *")
        rows = self._ffi.new(f"struct {kind}[]", _PAGE)
        while True:
            count = function(self._dp, *args, cursor, rows, _PAGE)
            for i in range(count):
                yield rows[i]
            if cursor[0] == 0:
                return

    def endpoint_upsert(self, row: EndpointRow) -> None:
        """Add or replace a local endpoint; DatapathError when the table is full."""
        self._upsert(self._lib.fwd_endpoint_upsert, to.endpoint_c(self._ffi, row))

    def endpoint_delete(self, lxc_id: int) -> bool:
        """Forget a local endpoint; False = there was none."""
        return bool(self._lib.fwd_endpoint_delete(self._dp, lxc_id))

    def endpoints(self) -> Iterator[EndpointRow]:
        """All local endpoints."""
        return (
            to.endpoint_py(self._ffi, r)
            for r in self._dump(self._lib.fwd_endpoint_dump, "fwd_endpoint_row")
        )

    def lxc_upsert(self, row: LxcRow) -> None:
        """Add or replace a local address; DatapathError when the table is full."""
        self._upsert(self._lib.fwd_lxc_upsert, to.lxc_c(self._ffi, self._lib, row))

    def lxc_delete(self, addr: Address) -> bool:
        """Forget a local address; False = there was none."""
        return bool(self._lib.fwd_lxc_delete(self._dp, to.addr_c(self._ffi, addr)))

    def lxcs(self) -> Iterator[LxcRow]:
        """All local addresses."""
        return (
            to.lxc_py(self._lib, self._ffi, r)
            for r in self._dump(self._lib.fwd_lxc_dump, "fwd_lxc_row")
        )

    def ipcache_upsert(self, row: IpcacheRow) -> None:
        """Add or replace a prefix; DatapathError when the table is full."""
        self._upsert(self._lib.fwd_ipcache_upsert, to.ipcache_c(self._ffi, self._lib, row))

    def ipcache_delete(self, prefix: Network) -> bool:
        """Forget a prefix; False = there was none."""
        return bool(self._lib.fwd_ipcache_delete(self._dp, to.ipcache_key_c(self._ffi, prefix)))

    def ipcache_settle(self) -> bool:
        """Make lookups fast again after changes; False when there were changes meanwhile.

        Lookups are right before and meanwhile. May run in a thread, one at a time; takes about
        0.1 s for a million prefixes.
        """
        return bool(self._lib.fwd_ipcache_settle(self._dp))

    def ipcache_lookup(self, addr: Address) -> IpcacheRow | None:
        """The longest prefix that holds ``addr``, None = a miss (world)."""
        row = self._ffi.new("struct fwd_ipcache_row *")
        found = self._lib.fwd_ipcache_lookup(self._dp, to.addr_c(self._ffi, addr), row)
        return to.ipcache_py(self._lib, self._ffi, row) if found else None

    def ipcache_page(self, cursor: int, limit: int) -> tuple[list[IpcacheRow], int]:
        """At most ``limit`` prefixes from ``cursor`` on (0 = start); next cursor 0 = the end."""
        position = self._ffi.new("uint64_t *", cursor)
        rows = self._ffi.new("struct fwd_ipcache_row[]", limit)
        count = self._lib.fwd_ipcache_dump(self._dp, position, rows, limit)
        return [to.ipcache_py(self._lib, self._ffi, rows[i]) for i in range(count)], int(
            position[0]
        )

    def ipcache(self) -> Iterator[IpcacheRow]:
        """All prefixes, in no order."""
        return (
            to.ipcache_py(self._lib, self._ffi, r)
            for r in self._dump(self._lib.fwd_ipcache_dump, "fwd_ipcache_row")
        )

    def policy_upsert(self, row: PolicyRow) -> None:
        """Add or replace a policy map entry; DatapathError when the table is full."""
        self._upsert(self._lib.fwd_policy_upsert, to.policy_c(self._ffi, row))

    def policy_delete(self, row: PolicyRow) -> bool:
        """Forget the entry with the key of ``row``; False = there was none."""
        return bool(self._lib.fwd_policy_delete(self._dp, to.policy_c(self._ffi, row)))

    def policy_lookup(
        self, lxc_id: int, direction: int, identity: int, proto: int, port: int
    ) -> tuple[int, PolicyRow | None, int]:
        """What policy says, without counting.

        Returns:
            (0 or drop reason, the entry that decided or None, match type of 8.4).
        """
        row = self._ffi.new("struct fwd_policy_row *")
        match = self._ffi.new("uint8_t *")
        drop = self._lib.fwd_policy_lookup(
            self._dp, lxc_id, direction, identity, proto, port, row, match
        )
        return int(drop), to.policy_py(row) if row.rule_id else None, int(match[0])

    def policies(self) -> Iterator[PolicyRow]:
        """All policy map entries of all endpoints."""
        return (to.policy_py(r) for r in self._dump(self._lib.fwd_policy_dump, "fwd_policy_row"))

    def peer_upsert(self, row: PeerRow) -> None:
        """Add or replace a remote node; DatapathError when the table is full."""
        self._upsert(self._lib.fwd_peer_upsert, to.peer_c(self._ffi, row))

    def peer_delete(self, ip: Address) -> bool:
        """Forget a remote node; False = there was none."""
        return bool(self._lib.fwd_peer_delete(self._dp, to.addr_c(self._ffi, ip)))

    def peers(self) -> Iterator[PeerRow]:
        """All remote nodes."""
        return (
            to.peer_py(self._ffi, r) for r in self._dump(self._lib.fwd_peer_dump, "fwd_peer_row")
        )

    def service_upsert(self, row: ServiceRow) -> None:
        """Add or replace a frontend and its slots; DatapathError when a table is full."""
        err = self._ffi.new("struct fwd_error *")
        ids = self._ffi.new("uint32_t[]", list(row.backends))
        service = to.service_c(self._ffi, row)
        if self._lib.fwd_service_upsert(self._dp, service, ids, len(row.backends), err) != 0:
            raise DatapathError(error_text(self._ffi, err))

    def service_delete(self, row: ServiceRow) -> bool:
        """Forget the frontend with the key of ``row``; False = there was none."""
        return bool(self._lib.fwd_service_delete(self._dp, to.service_c(self._ffi, row)))

    def services(self) -> Iterator[ServiceRow]:
        """All frontends with their slots."""
        for row in self._dump(self._lib.fwd_service_dump, "fwd_service_row"):
            ids = self._ffi.new("uint32_t[]", int(row.count))
            key = self._ffi.addressof(row)
            count = self._lib.fwd_service_slots(self._dp, key, ids, int(row.count))
            yield to.service_py(self._ffi, row, tuple(int(ids[i]) for i in range(count)))

    def backend_upsert(self, row: BackendRow) -> None:
        """Add or replace a backend; DatapathError when the table is full."""
        self._upsert(self._lib.fwd_backend_upsert, to.backend_c(self._ffi, row))

    def backend_delete(self, backend_id: int) -> bool:
        """Forget a backend; False = there was none."""
        return bool(self._lib.fwd_backend_delete(self._dp, backend_id))

    def backends(self) -> Iterator[BackendRow]:
        """All backends."""
        rows = self._dump(self._lib.fwd_backend_dump, "fwd_backend_row")
        return (to.backend_py(self._ffi, row) for row in rows)

    # ---- services for traffic from outside ----

    def source_range_upsert(self, row: SourceRangeRow) -> None:
        """Let a range use a service; DatapathError when the table is full."""
        c_row = outside_to.source_range_c(self._ffi, row)
        self._upsert(self._lib.fwd_source_range_upsert, c_row)

    def source_range_delete(self, row: SourceRangeRow) -> bool:
        """Take that back; False = there was none."""
        c_row = outside_to.source_range_c(self._ffi, row)
        return bool(self._lib.fwd_source_range_delete(self._dp, c_row))

    def source_ranges(self) -> Iterator[SourceRangeRow]:
        """All ranges of all services."""
        rows = self._dump(self._lib.fwd_source_range_dump, "fwd_source_range_row")
        return (outside_to.source_range_py(self._ffi, row) for row in rows)

    def maglev_upsert(self, row: MaglevRow) -> None:
        """Give a service a table, or another one; DatapathError when there is no room.

        Raises:
            ValueError: the table has another length than FWD_MAGLEV_SIZE.
        """
        size = int(self._lib.FWD_MAGLEV_SIZE)
        if len(row.backends) != size:
            msg = f"a Maglev table has {size} places, not {len(row.backends)}"
            raise ValueError(msg)
        ids, err = (
            self._ffi.new("uint32_t[]", list(row.backends)),
            self._ffi.new("struct fwd_error *"),
        )
        if self._lib.fwd_maglev_upsert(self._dp, row.rev_nat_id, ids, err) != 0:
            raise DatapathError(error_text(self._ffi, err))

    def maglev_delete(self, rev_nat_id: int) -> bool:
        """Go back to random choice; False = the service had no table."""
        return bool(self._lib.fwd_maglev_delete(self._dp, rev_nat_id))

    def maglev(self, rev_nat_id: int) -> tuple[int, ...]:
        """The table of a service, empty = it has none."""
        ids = self._ffi.new("uint32_t[]", int(self._lib.FWD_MAGLEV_SIZE))
        count = self._lib.fwd_maglev_get(self._dp, rev_nat_id, ids)
        return tuple(self._ffi.unpack(ids, int(count))) if count else ()

    # ---- conntrack ----

    def ct_records(self, *, tcp: bool, cursor: int, limit: int) -> tuple[bytes, int]:
        """At most ``limit`` entries from ``cursor`` on (0 = start) as they are in abi.h.

        Returns:
            What ``convert.ct_rows`` reads, and the next cursor, 0 = the end.
        """
        position = self._ffi.new("uint64_t *", cursor)
        rows = self._ffi.new("struct fwd_ct_row[]", limit)
        count = self._lib.fwd_ct_dump(self._dp, self._map(tcp=tcp), position, rows, limit)
        size = int(count) * self._ffi.sizeof("struct fwd_ct_row")
        return bytes(self._ffi.buffer(rows, size)), int(position[0])

    def ct_page(self, *, tcp: bool, cursor: int, limit: int) -> tuple[list[CtRow], int]:
        """At most ``limit`` entries from ``cursor`` on (0 = start); next cursor 0 = the end."""
        records, cursor = self.ct_records(tcp=tcp, cursor=cursor, limit=limit)
        return to.ct_rows(records), cursor

    def ct(self, *, tcp: bool) -> Iterator[CtRow]:
        """All entries of one map."""
        cursor = 0
        while True:
            rows, cursor = self.ct_page(tcp=tcp, cursor=cursor, limit=_PAGE)
            yield from rows
            if cursor == 0:
                return

    def ct_sweep(self, *, tcp: bool, now_s: int, cursor: int, budget: int) -> tuple[int, int]:
        """Look at ``budget`` entries and delete the expired: (deleted, next cursor, 0 = end)."""
        position = self._ffi.new("uint64_t *", cursor)
        deleted = self._lib.fwd_ct_sweep(self._dp, self._map(tcp=tcp), now_s, position, budget)
        return int(deleted), int(position[0])

    def ct_purge(self, *, tcp: bool, addr: Address, cursor: int, budget: int) -> tuple[int, int]:
        """The same walk, deleting entries with ``addr`` on either side."""
        position = self._ffi.new("uint64_t *", cursor)
        deleted = self._lib.fwd_ct_purge_addr(
            self._dp, self._map(tcp=tcp), to.addr_c(self._ffi, addr), position, budget
        )
        return int(deleted), int(position[0])

    def ct_purge_services(self, *, tcp: bool, cursor: int, budget: int) -> tuple[int, int]:
        """The same walk, deleting flows whose service is gone or no longer has their backend."""
        position = self._ffi.new("uint64_t *", cursor)
        deleted = self._lib.fwd_ct_purge_services(self._dp, self._map(tcp=tcp), position, budget)
        return int(deleted), int(position[0])

    # ---- masquerading ----

    def nats(self) -> Iterator[NatRow]:
        """All halves of all mappings."""
        return (to.nat_py(self._ffi, r) for r in self._dump(self._lib.fwd_nat_dump, "fwd_nat_row"))

    def nat_page(self, cursor: int, limit: int) -> tuple[list[NatRow], int]:
        """At most ``limit`` halves from ``cursor`` on (0 = start); next cursor 0 = the end."""
        position = self._ffi.new("uint64_t *", cursor)
        rows = self._ffi.new("struct fwd_nat_row[]", limit)
        count = self._lib.fwd_nat_dump(self._dp, position, rows, limit)
        return [to.nat_py(self._ffi, rows[i]) for i in range(count)], int(position[0])

    def nat_sweep(self, *, cursor: int, budget: int) -> tuple[int, int]:
        """Look at ``budget`` halves, delete mappings without a connection: as ``ct_sweep``."""
        position = self._ffi.new("uint64_t *", cursor)
        deleted = self._lib.fwd_nat_sweep(self._dp, position, budget)
        return int(deleted), int(position[0])

    # ---- counters and events ----

    def metrics(self) -> list[MetricRow]:
        """All (reason, direction) pairs that counted something."""
        return [to.metric_py(r) for r in self._dump(self._lib.fwd_metrics_dump, "fwd_metric_row")]

    def stats(self, table: str) -> TableStats:
        """Capacity and use of ``table``; KeyError for an unknown name.

        Args:
            table: ct_tcp, ct_any, ipcache, endpoint, lxc, policy, peer, frag, service, backend,
                affinity, slot, nat, source_range or maglev.
        """
        out = self._ffi.new("struct fwd_table_stats *")
        self._lib.fwd_table_stats(self._dp, self._table_ids[table], out)
        return to.stats_py(out)
