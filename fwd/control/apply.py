"""World to datapath: the difference of two worlds as table operations, and writing them.

All or nothing (D12): capacities are compared before the first write, and a refused row takes back
what was written before it. ``diff`` is pure; ``apply`` touches the one datapath it is given.

The order is such that no moment allows what neither world allows. What goes stops being reachable
first. Then policy only shrinks (denies come, allows go), identities change, and only then policy
grows (allows come, denies go); what is new becomes reachable last. Backends come before the
services that name them and go after.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from fwd.control.row_tables import Row, table_of
from fwd.datapath.errors import DatapathError
from fwd.model.rows import PolicyRow, ServiceRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fwd.control.world import World
    from fwd.datapath.binding import Datapath
    from fwd.model.rows import Address, Settings

__all__ = ["ApplyReport", "Op", "Ops", "apply", "as_held", "check_capacity", "diff",
           "purge_connections", "purge_services"]  # fmt: skip

PURGE_BUDGET = 65536  # conntrack entries one call walks


@dataclass(frozen=True, slots=True)
class Op:
    """One change of one table: ``row`` None deletes ``before``, ``before`` None inserts ``row``."""

    row: Row | None
    before: Row | None

    @property
    def table(self) -> str:
        """The table's name, as ``Datapath.stats`` takes it."""
        return table_of(self.some).name

    @property
    def some(self) -> Row:
        """The row as it will be, or as it was when it goes."""
        return self.row or cast("Row", self.before)


@dataclass(frozen=True, slots=True)
class Ops:
    """What leads from one world to another, in the order in which it is safe."""

    steps: tuple[Op, ...]
    settings: Settings
    settings_at: int
    """The settings are written before ``steps[settings_at]``."""
    gone_addrs: tuple[Address, ...]
    """Local addresses that lost their endpoint: their connections are void."""
    services_shrank: bool
    """A service or one of its backends goes: so do their connections."""
    notes: tuple[str, ...]
    """What the new world asks for and a running datapath cannot do."""


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What ``apply`` did: rows written and removed."""

    upserted: int
    deleted: int
    gone_addrs: tuple[Address, ...]
    services_shrank: bool
    notes: tuple[str, ...]


class _Changes:
    """The changes of one table by kind; a row that stays as it is makes none."""

    def __init__(self, old: Iterable[Row], new: Iterable[Row]) -> None:
        before = {table_of(row).key(row): row for row in old}
        after = {table_of(row).key(row): row for row in new}
        self.gone = [Op(None, row) for key, row in before.items() if key not in after]
        self.new = [Op(row, None) for key, row in after.items() if key not in before]
        self.changed = [
            Op(row, before[key])
            for key, row in after.items()
            if key in before and before[key] != row
        ]


def diff(old: World | None, new: World) -> Ops:
    """Return what turns a datapath that holds ``old`` (None: nothing) into one of ``new``."""
    endpoint = _Changes(old.endpoints if old else (), new.endpoints)
    lxc = _Changes(old.lxc if old else (), new.lxc)
    ipcache = _Changes(old.ipcache if old else (), new.ipcache)
    policy = _Changes(old.policy if old else (), new.policy)
    peer = _Changes(old.peers if old else (), new.peers)
    service = _Changes(old.services if old else (), new.services)
    backend = _Changes(old.backends if old else (), new.backends)
    ranges = _Changes(old.source_ranges if old else (), new.source_ranges)
    maglev = _Changes(old.maglev if old else (), new.maglev)
    written = policy.new + policy.changed
    strict = [
        *service.gone,
        *ranges.gone,
        *maglev.gone,
        *lxc.gone,
        *endpoint.gone,
        *peer.gone,
        *(op for op in written if _denies(op.row)),
        *(op for op in policy.gone if not _denies(op.before)),
    ]
    steps = [
        *strict,
        *endpoint.changed,
        *ipcache.changed,
        *ipcache.new,
        *ipcache.gone,
        *peer.changed,
        *(op for op in written if not _denies(op.row)),
        *(op for op in policy.gone if _denies(op.before)),
        *endpoint.new,
        *lxc.changed,
        *lxc.new,
        *peer.new,
        *backend.new,
        *backend.changed,
        *service.changed,
        *maglev.changed,
        *maglev.new,
        *ranges.new,
        *service.new,
        *backend.gone,  # once no slot names them
    ]
    return Ops(
        steps=tuple(steps),
        settings=new.settings,
        settings_at=len(strict),
        gone_addrs=_gone_addrs(old, new),
        services_shrank=any(map(_shrinks, (*service.gone, *service.changed))),
        notes=_notes(old, new),
    )


def _shrinks(op: Op) -> bool:
    match op:
        case Op(row=ServiceRow() as row, before=ServiceRow() as before):
            return row.rev_nat_id != before.rev_nat_id or not set(before.backends) <= set(
                row.backends
            )
    return op.row is None


def _denies(row: Row | None) -> bool:
    return isinstance(row, PolicyRow) and row.deny


def _gone_addrs(old: World | None, new: World) -> tuple[Address, ...]:
    kept = {(row.addr, row.lxc_id) for row in new.lxc}
    rows = old.lxc if old else ()
    return tuple(row.addr for row in rows if not row.host and (row.addr, row.lxc_id) not in kept)


def _notes(old: World | None, new: World) -> tuple[str, ...]:
    if old is None:
        return ()
    sizes = (
        ("tcp", old.params.ct_tcp, new.params.ct_tcp),
        ("any", old.params.ct_any, new.params.ct_any),
    )
    return tuple(
        f"conntrack.capacity.{name}: stays {was} until the service is stopped and started, "
        f"not {wanted}"
        for name, was, wanted in sizes
        if was != wanted
    )


def apply(dp: Datapath, ops: Ops) -> ApplyReport:
    """Write ``ops``; the monitor's own settings stay as they are.

    Raises:
        DatapathError: a table cannot hold the rows, or refused one; the datapath is as before.
    """
    check_capacity(dp, ops.steps)
    before = dp.settings
    done: list[Op] = []
    try:
        for position, op in enumerate(ops.steps):
            if position == ops.settings_at:
                _set_settings(dp, ops.settings)
            _write(dp, op)
            done.append(op)
        _set_settings(dp, ops.settings)
    except DatapathError:
        dp.set_settings(before)
        for op in reversed(done):
            _write(dp, Op(op.before, op.row))
        raise
    deleted = sum(op.row is None for op in ops.steps)
    return ApplyReport(
        len(ops.steps) - deleted, deleted, ops.gone_addrs, ops.services_shrank, ops.notes
    )


def as_held(dp: Datapath, world: World) -> World:
    """Return a world that was just applied as ``dp`` holds it: tables keep their sizes."""
    return replace(world, params=dp.params)


def purge_connections(dp: Datapath, addrs: Iterable[Address]) -> int:
    """Delete every conntrack entry that has one of ``addrs`` on either side; return how many."""
    return sum(
        _walk(partial(dp.ct_purge, tcp=tcp, addr=addr)) for addr in addrs for tcp in (True, False)
    )


def purge_services(dp: Datapath) -> int:
    """Delete every entry of a flow whose service, or whose backend in it, is gone.

    Returns:
        How many were deleted.
    """
    return sum(_walk(partial(dp.ct_purge_services, tcp=tcp)) for tcp in (True, False))


def _walk(step: Callable[..., tuple[int, int]]) -> int:
    deleted, cursor = step(cursor=0, budget=PURGE_BUDGET)
    while cursor:
        count, cursor = step(cursor=cursor, budget=PURGE_BUDGET)
        deleted += count
    return deleted


def _set_settings(dp: Datapath, settings: Settings) -> None:
    now = dp.settings
    dp.set_settings(
        replace(
            settings,
            monitor_mask=now.monitor_mask,
            monitor_aggregation=now.monitor_aggregation,
        )
    )


def check_capacity(dp: Datapath, steps: Iterable[Op]) -> None:
    """Walk through ``steps`` without writing: no table may be too full at any of them.

    Raises:
        DatapathError: one is.
    """
    count: Counter[str] = Counter()
    peak: Counter[str] = Counter()
    for op in steps:
        count[op.table] += (op.before is None) - (op.row is None)
        count["slot"] += _slots(op.row) - _slots(op.before)
        for table in (op.table, "slot"):
            peak[table] = max(peak[table], count[table])
    for table, more in peak.items():
        stats = dp.stats(table)
        if stats.count + more > stats.cap:
            msg = (
                f"the {table} table holds {stats.cap} rows and {stats.count + more} are needed: "
                "nothing was changed; make the node file smaller, or restart to size it anew"
            )
            raise DatapathError(msg)


def _slots(row: Row | None) -> int:
    return len(row.backends) if isinstance(row, ServiceRow) else 0


def _write(dp: Datapath, op: Op) -> None:
    """Write one change into its table."""
    table = table_of(op.some)
    if op.row is None:
        table.delete(dp, op.some)
    else:
        table.upsert(dp, op.row)
