"""What services need for traffic from outside: wildcard entries, source ranges, Maglev tables.

Pure. Made of the checked sections and of the rows that fwd/control/services.py made of them.
Source: datapath reference 4.1, 4.3, 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwd.control.services import SERVICE_FLAGS, wildcard_numbers
from fwd.model.maglev import maglev_table
from fwd.model.rows import MaglevRow, ServiceRow, SourceRangeRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwd.config.schema import NodeFile
    from fwd.model.rows import BackendRow

__all__ = ["Outside", "compile_outside"]

_ROUTABLE = SERVICE_FLAGS["routable"]
_RANGE = SERVICE_FLAGS["source_range"]
_WHOLE = SERVICE_FLAGS["external_ip"] | SERVICE_FLAGS["load_balancer"]
"""Kinds of frontends whose address is a service's alone."""
_ACTIVE = 0


@dataclass(frozen=True, slots=True)
class Outside:
    """Rows; nothing when ``features.nodeport`` is off."""

    wildcards: tuple[ServiceRow, ...] = ()
    source_ranges: tuple[SourceRangeRow, ...] = ()
    maglev: tuple[MaglevRow, ...] = ()


def compile_outside(
    node: NodeFile, services: tuple[ServiceRow, ...], backends: tuple[BackendRow, ...]
) -> Outside:
    """Return the rows for ``services`` and ``backends``, which were made of ``node``."""
    if not node.features.nodeport:
        return Outside()
    known = {row.id: row for row in backends}
    ranges = {
        SourceRangeRow(row.rev_nat_id, prefix): None
        for one, row in zip(node.services, services, strict=True)
        if row.flags & _RANGE and row.scope == 0
        for prefix in one.source_ranges
    }
    tables = (_maglev(row, known) for row in services if row.flags & _ROUTABLE and row.scope == 0)
    return Outside(
        wildcards=tuple(_wildcards(node, services)),
        source_ranges=tuple(ranges),
        maglev=tuple(row for row in tables if row.backends),
    )


def _wildcards(node: NodeFile, services: tuple[ServiceRow, ...]) -> Iterator[ServiceRow]:
    """One entry an address that is nothing but a frontend: its other ports lead nowhere.

    The node's own addresses have ports of the host's beside the services', so they have none.
    """
    own = set(node.node.own)
    addrs = {
        row.frontend: row.flags & (_WHOLE | _ROUTABLE)
        for row in services
        if row.flags & _ROUTABLE and row.flags & _WHOLE and row.frontend not in own
    }
    numbers = wildcard_numbers(addrs, {row.rev_nat_id for row in services})
    for addr, flags in addrs.items():
        yield ServiceRow(addr, 0, 0, 0, flags, numbers[addr])


def _maglev(row: ServiceRow, backends: Mapping[int, BackendRow]) -> MaglevRow:
    """The table of one service; backends that drain have no place in it."""
    rows = (backends[number] for number in row.backends)
    names = {f"{one.addr}:{one.port}/{one.proto}": one.id for one in rows if one.state == _ACTIVE}
    order = tuple(sorted(names))
    return MaglevRow(row.rev_nat_id, tuple(names[order[index]] for index in maglev_table(order)))
