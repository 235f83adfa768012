"""World: everything one node's datapath is told, as table rows.

Values only. fwd/control/compile.py makes a world of a node file, fwd/control/apply.py writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, PORT_OVERLAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwd.model.policy import Rule
    from fwd.model.rows import (
        Address,
        BackendRow,
        EndpointRow,
        IpcacheRow,
        LxcRow,
        MaglevRow,
        Params,
        PeerRow,
        PolicyRow,
        ServiceRow,
        Settings,
        SourceRangeRow,
    )

__all__ = ["HOST_PORTS", "Link", "World"]

HOST_PORTS: Final = MappingProxyType(
    {"cilium_host": PORT_HOST, "netdev": PORT_NETDEV, "overlay": PORT_OVERLAY}
)
"""Ports of the node itself by the names replay and the CLI use."""


@dataclass(frozen=True, slots=True)
class Link:
    """What the kernel says of an endpoint's device; it beats the node file."""

    ifindex: int


@dataclass(frozen=True, slots=True)
class World:
    """The rows of every table, and the names behind their numbers."""

    params: Params
    settings: Settings
    ip: Address
    """Underlay address of the node."""
    endpoints: tuple[EndpointRow, ...] = ()
    lxc: tuple[LxcRow, ...] = ()
    ipcache: tuple[IpcacheRow, ...] = ()
    policy: tuple[PolicyRow, ...] = ()
    peers: tuple[PeerRow, ...] = ()
    services: tuple[ServiceRow, ...] = ()
    backends: tuple[BackendRow, ...] = ()
    source_ranges: tuple[SourceRangeRow, ...] = ()
    maglev: tuple[MaglevRow, ...] = ()
    rules: Mapping[int, Rule] = field(default_factory=dict)
    """rule_id to the rule it stands for."""
    service_names: Mapping[int, str] = field(default_factory=dict)
    """rev_nat_id to service name."""
    names: Mapping[int, str] = field(default_factory=dict)
    """lxc_id to endpoint name."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """Endpoint name to lxc_id, and HOST_PORTS."""
