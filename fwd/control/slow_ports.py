"""Who is asked when a port punts a frame: the slow path with the addresses of the tables' rows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwd.datapath.binding import Punt
    from fwd.model.rows import Address, EndpointRow, LxcRow

__all__ = ["SlowPorts"]


@dataclass(frozen=True, slots=True)
class SlowPorts:
    """What the slow path has to know of all ports."""

    endpoints: dict[int, EndpointRow]
    addresses: dict[int, frozenset[Address]]
    """lxc_id to the pod's addresses."""
    routers: tuple[Address, ...]

    @classmethod
    def of(cls, endpoints: Iterable[EndpointRow], lxcs: Iterable[LxcRow]) -> Self:
        """Make it of the rows of the endpoint and the lxc table."""
        addresses: defaultdict[int, set[Address]] = defaultdict(set)
        routers = []
        for row in lxcs:
            if not row.host:
                addresses[row.lxc_id].add(row.addr)
            elif row.router:
                routers.append(row.addr)
        return cls(
            {row.lxc_id: row for row in endpoints},
            {lxc_id: frozenset(some) for lxc_id, some in addresses.items()},
            tuple(routers),
        )

    def answer(self, punt: Punt) -> bytes | None:
        """Return the frame that answers a punted one; None is silence."""
        from fwd.datapath import slowpath  # noqa: PLC0415 - dpkt can wait until a frame asks

        row = self.endpoints.get(punt.port)
        if row is None:
            return None
        own = self.addresses.get(punt.port, frozenset())
        return slowpath.answer(punt.data, row.mac, row.node_mac, own, self.routers)
