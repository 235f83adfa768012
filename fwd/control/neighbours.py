"""Who answers a pod's ARP, neighbour discovery and pings to the gateway: the slow path's ports.

Pure: addresses of the node file and the frames of fwd/datapath/slowpath.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwd.datapath import slowpath

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile
    from fwd.datapath.binding import Punt
    from fwd.model.rows import Address

__all__ = ["Neighbours"]


@dataclass(frozen=True, slots=True)
class _Port:
    mac: bytes
    node_mac: bytes
    ips: frozenset[Address]


class Neighbours:
    """The pods of one node file, as the slow path sees them."""

    def __init__(self, node: NodeFile) -> None:
        self._routers = node.node.router_ip
        self._ports = {
            one.id: _Port(one.mac, one.node_mac, frozenset(one.ip)) for one in node.endpoints
        }

    def answer(self, punt: Punt) -> bytes | None:
        """Return the frame that answers a punted one; None = silence."""
        port = self._ports.get(punt.port)
        if port is None:
            return None
        return slowpath.answer(punt.data, port.mac, port.node_mac, port.ips, self._routers)
