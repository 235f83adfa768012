"""Which table a row belongs to, what it is found by there, and how it is written and deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fwd.model.rows import (
    BackendRow,
    EndpointRow,
    IpcacheRow,
    LxcRow,
    MaglevRow,
    PeerRow,
    PolicyRow,
    ServiceRow,
    SourceRangeRow,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwd.datapath.binding import Datapath

__all__ = ["Row", "RowTable", "table_of"]

Row = (
    EndpointRow | LxcRow | IpcacheRow | PolicyRow | PeerRow | ServiceRow | BackendRow
    | SourceRangeRow | MaglevRow
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowTable:
    """One table of the datapath; ``name`` as ``Datapath.stats`` takes it."""

    name: str
    key: Callable[[Any], object]
    upsert: Callable[[Datapath, Any], None]
    delete: Callable[[Datapath, Any], bool]


def _policy_key(row: PolicyRow) -> object:
    return (row.lxc_id, row.dir, row.identity, row.proto, row.port, row.prefix_len)


def _service_key(row: ServiceRow) -> object:
    return (row.frontend, row.port, row.proto, row.scope)


_TABLES: Final[dict[type, RowTable]] = {
    EndpointRow: RowTable(
        "endpoint",
        lambda row: row.lxc_id,
        lambda dp, row: dp.endpoint_upsert(row),
        lambda dp, row: dp.endpoint_delete(row.lxc_id),
    ),
    LxcRow: RowTable(
        "lxc",
        lambda row: row.addr,
        lambda dp, row: dp.lxc_upsert(row),
        lambda dp, row: dp.lxc_delete(row.addr),
    ),
    IpcacheRow: RowTable(
        "ipcache",
        lambda row: row.prefix,
        lambda dp, row: dp.ipcache_upsert(row),
        lambda dp, row: dp.ipcache_delete(row.prefix),
    ),
    PolicyRow: RowTable(
        "policy",
        _policy_key,
        lambda dp, row: dp.policy_upsert(row),
        lambda dp, row: dp.policy_delete(row),
    ),
    PeerRow: RowTable(
        "peer",
        lambda row: row.ip,
        lambda dp, row: dp.peer_upsert(row),
        lambda dp, row: dp.peer_delete(row.ip),
    ),
    ServiceRow: RowTable(
        "service",
        _service_key,
        lambda dp, row: dp.service_upsert(row),
        lambda dp, row: dp.service_delete(row),
    ),
    BackendRow: RowTable(
        "backend",
        lambda row: row.id,
        lambda dp, row: dp.backend_upsert(row),
        lambda dp, row: dp.backend_delete(row.id),
    ),
    SourceRangeRow: RowTable(
        "source_range",
        lambda row: row,
        lambda dp, row: dp.source_range_upsert(row),
        lambda dp, row: dp.source_range_delete(row),
    ),
    MaglevRow: RowTable(
        "maglev",
        lambda row: row.rev_nat_id,
        lambda dp, row: dp.maglev_upsert(row),
        lambda dp, row: dp.maglev_delete(row.rev_nat_id),
    ),
}


def table_of(row: Row) -> RowTable:
    """Return the table of ``row``."""
    return _TABLES[type(row)]
