"""What Kubernetes manifests say, as values: pods, services, their backends, policies.

Pure; knows nothing of nodes. Every object carries its origin, the place in its file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwd.model.policy import Action, Direction, PortRange, Proto
    from fwd.model.rows import Address, Network
    from fwd.model.selector import Selector

__all__ = [
    "BackendState",
    "Entity",
    "Manifests",
    "Namespace",
    "Origin",
    "Peer",
    "Pod",
    "Policy",
    "PolicyRule",
    "PortMatch",
    "Service",
    "ServicePort",
    "Slice",
    "SliceEndpoint",
]

Entity = Literal["world", "host", "cluster", "remote-node", "all"]
BackendState = Literal["active", "terminating"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object stands."""

    kind: str
    name: str
    """``namespace/name``; of clusterwide objects the name alone."""
    file: str
    line: int

    def __str__(self) -> str:
        """Return ``Pod default/curl``."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace's labels, its automatic one included."""

    origin: Origin
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; ``ips`` and ``netns`` may be the node file's to say."""

    origin: Origin
    namespace: str
    labels: Mapping[str, str]
    """Those of its identity (fwd/model/selector.py)."""
    node_name: str | None = None
    ips: tuple[Address, ...] = ()
    netns: str | None = None


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a service; ``target`` is a number or the name of a port."""

    name: str
    proto: Literal["tcp", "udp", "sctp"]
    port: int
    target: int | str
    node_port: int | None
    line: int


@dataclass(frozen=True, slots=True)
class Service:
    """A service; the frontends' kinds keep their addresses apart."""

    origin: Origin
    namespace: str
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"]
    cluster_ips: tuple[Address, ...]
    """Empty = headless."""
    ports: tuple[ServicePort, ...]
    selector: Selector | None
    """None = its EndpointSlices are written by hand."""
    affinity_timeout_s: int = 0
    """0 = no session affinity."""
    internal_local: bool = False
    external_local: bool = False
    external_ips: tuple[Address, ...] = ()
    balancer_ips: tuple[Address, ...] = ()
    source_ranges: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """One backend of a slice."""

    addresses: tuple[Address, ...]
    state: BackendState | None
    """None = takes no traffic at all."""
    node_name: str | None


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice of ``service`` (``namespace/name``)."""

    origin: Origin
    service: str
    ports: Mapping[tuple[str, str], int]
    """(port name, protocol) to number."""
    endpoints: tuple[SliceEndpoint, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """The other side of a rule: exactly one of the three is set."""

    selector: Selector | None = None
    entity: Entity | None = None
    cidr: Network | None = None
    excepts: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMatch:
    """Protocol and ports; ``ports`` None = all. ICMP: the type."""

    proto: Proto
    ports: PortRange | None = None


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One item of a policy's ingress or egress list."""

    direction: Direction
    action: Action
    index: int
    """In its list, from 0."""
    line: int
    peers: tuple[Peer, ...] | None
    """None = anybody; empty = nobody."""
    ports: tuple[PortMatch, ...] = ()
    """Empty = all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of either API: whom it selects, what it denies by default, its rules."""

    origin: Origin
    subject: Selector
    ingress: bool
    """It puts what it selects under default deny in this direction."""
    egress: bool
    rules: tuple[PolicyRule, ...]


@dataclass(frozen=True, slots=True)
class Manifests:
    """Everything some files say."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    services: tuple[Service, ...] = ()
    slices: tuple[Slice, ...] = ()
    policies: tuple[Policy, ...] = ()
