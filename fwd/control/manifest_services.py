"""Services and EndpointSlices of manifests to service rows, as the node file writes them by hand.

Pure. Backends are those of the service's slices; without slices, the known pods its selector
selects. A frontend with policy ``Local`` has the backends of this node only; where the policies for
pods and for the outside differ, a frontend is written once for each scope (datapath reference 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fwd.config.check_services import check_services
from fwd.config.schema import BackendRow, ServiceSection
from fwd.manifest.reader import ManifestError
from fwd.model.selector import LabelIndex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwd.config.schema import NodeFile
    from fwd.control.identities import Roster
    from fwd.model.manifest import Manifests, Origin, Service, ServicePort, Slice
    from fwd.model.rows import Address

__all__ = ["make_services", "service_warnings"]


@dataclass(frozen=True, slots=True)
class _Backend:
    ip: Address
    port: int
    state: str
    local: bool


class _Backends:
    """Finds the backends of services on one node."""

    def __init__(self, node: NodeFile, manifests: Manifests, roster: Roster) -> None:
        self._node = node.node.name
        self._members = roster.members
        self._index = LabelIndex((name, one.labels) for name, one in roster.members.items())
        self._here = {ip for one in roster.members.values() if one.is_on(self._node)
                      for ip in one.addresses}  # fmt: skip
        self._slices: dict[str, list[Slice]] = {}
        for one in manifests.slices:
            self._slices.setdefault(one.service, []).append(one)

    def of(self, service: Service, port: ServicePort) -> list[_Backend]:
        """Return a port's backends by address."""
        slices = self._slices.get(service.origin.name, ())
        found = self._of_slices(slices, port) if slices else self._of_pods(service, port)
        by_target = {(one.ip, one.port): one for one in found}
        return sorted(by_target.values(), key=lambda one: (one.ip.version, int(one.ip), one.port))

    def _of_slices(self, slices: Iterable[Slice], port: ServicePort) -> Iterator[_Backend]:
        states: dict[tuple[Address, int], tuple[Slice, str]] = {}
        for one in slices:
            number = one.ports.get((port.name, port.proto))
            if number is None:
                continue
            for endpoint in one.endpoints:
                if endpoint.state is None:
                    continue
                for ip in endpoint.addresses:
                    other, state = states.setdefault((ip, number), (one, endpoint.state))
                    if state != endpoint.state:
                        raise ManifestError(
                            f"{one.origin.file}:{one.origin.line}: {one.origin}: {ip}:{number} is "
                            f"{endpoint.state} here and {state} in {other.origin}, write it once"
                        )
                    local = endpoint.node_name == self._node or ip in self._here
                    yield _Backend(ip, number, endpoint.state, local)

    def _of_pods(self, service: Service, port: ServicePort) -> Iterator[_Backend]:
        if service.selector is None:
            return
        for name in self._index.select(service.selector):
            for ip in self._members[name].addresses:
                if isinstance(port.target, str):
                    raise ManifestError(
                        f"{service.origin.file}:{port.line}: {service.origin}: targetPort "
                        f"'{port.target}' is a name, which pods have no numbers for: write the "
                        "number, or an EndpointSlice"
                    )
                yield _Backend(ip, port.target, "active", ip in self._here)


def make_services(
    node: NodeFile, manifests: Manifests, roster: Roster
) -> tuple[ServiceSection, ...]:
    """Return the rows of all services of the manifests.

    Raises:
        ManifestError: they contradict each other, or the node file's.
    """
    backends = _Backends(node, manifests, roster)
    _check_slices(manifests)
    _check_cluster_ips(node, manifests, roster)
    rows: list[ServiceSection] = []
    origins: list[tuple[Origin, int]] = []
    for service in manifests.services:
        for port in service.ports:
            made = list(_frontends(node, service, port, backends.of(service, port)))
            rows += made
            origins += [(service.origin, port.line)] * len(made)
    _check(node, rows, origins)
    return tuple(rows)


def service_warnings(manifests: Manifests) -> Iterator[str]:
    """Give the ports whose service has slices, none of which knows them."""
    named: dict[str, set[tuple[str, str]]] = {}
    for one in manifests.slices:
        named.setdefault(one.service, set()).update(one.ports)
    for service in manifests.services:
        known = named.get(service.origin.name)
        for port in service.ports if known is not None else ():
            if (port.name, port.proto) not in (known or ()):
                yield (
                    f"{service.origin.file}:{port.line}: {service.origin}: no EndpointSlice has "
                    f"port '{port.name}'/{port.proto}, so nobody is behind {port.port}"
                )


def _check_slices(manifests: Manifests) -> None:
    known = {service.origin.name for service in manifests.services}
    for one in manifests.slices:
        if one.service not in known:
            origin = one.origin
            raise ManifestError(
                f"{origin.file}:{origin.line}: {origin}: there is no Service {one.service}, "
                "add it or correct the label kubernetes.io/service-name"
            )


def _check_cluster_ips(node: NodeFile, manifests: Manifests, roster: Roster) -> None:
    """A service's own address is nobody else's."""
    owners: dict[Address, str] = {node.node.ip: f"node {node.node.name}"}
    for peer in node.peers:
        owners |= dict.fromkeys((peer.ip, *peer.router_ip), f"peer {peer.name}")
    for member in roster.members.values():
        owners |= dict.fromkeys(member.addresses, f"pod {member.name}")
    for service in manifests.services:
        for ip in service.cluster_ips:
            if ip in owners:
                origin = service.origin
                raise ManifestError(
                    f"{origin.file}:{origin.line}: {origin}: clusterIP {ip} is {owners[ip]}'s, "
                    "give the service its own address"
                )


def _frontends(
    node: NodeFile, service: Service, port: ServicePort, backends: list[_Backend]
) -> Iterator[ServiceSection]:
    """Give the rows of one port."""
    for ip in service.cluster_ips:
        inside: tuple[str, ...] = ("int_local",) if service.internal_local else ()
        yield _row(service, port, ip, port.port, backends, inside, local=service.internal_local)
    outside: list[tuple[Address, int, tuple[str, ...]]] = []
    if port.node_port is not None:
        outside.append((node.node.ip, port.node_port, ("node_port", "routable")))
    outside += [(ip, port.port, ("external_ip", "routable")) for ip in service.external_ips]
    balancer: tuple[str, ...] = ("load_balancer", "routable")
    if service.source_ranges:
        balancer += ("source_range",)
    outside += [(ip, port.port, balancer) for ip in service.balancer_ips]
    two = service.external_local != service.internal_local
    wishes = (("ext_local", service.external_local), ("int_local", service.internal_local),
              ("two_scopes", two))  # fmt: skip
    more = tuple(flag for flag, wanted in wishes if wanted)
    for ip, number, kind in outside:
        flags = (*kind, *more)
        yield _row(service, port, ip, number, backends, flags, local=service.external_local)
        if two:
            yield _row(
                service, port, ip, number, backends, flags,
                local=service.internal_local, scope="internal",
            )  # fmt: skip


def _row(  # noqa: PLR0913 - one argument a fact of the frontend
    service: Service,
    port: ServicePort,
    ip: Address,
    number: int,
    backends: Iterable[_Backend],
    flags: tuple[str, ...],
    *,
    local: bool,
    scope: str = "external",
) -> ServiceSection:
    affinity = ("affinity",) if service.affinity_timeout_s else ()
    values: dict[str, Any] = {
        "line": port.line,
        "name": service.origin.name,
        "frontend": ip,
        "port": number,
        "proto": port.proto,
        "scope": scope,
        "flags": (*flags, *affinity),
        "affinity_timeout_s": service.affinity_timeout_s,
        "source_ranges": service.source_ranges if "source_range" in flags else (),
        "backends": tuple(
            BackendRow.model_construct(ip=one.ip, port=one.port, state=one.state)
            for one in backends
            if one.ip.version == ip.version and (one.local or not local)
        ),
    }
    return ServiceSection.model_construct(**values)


def _check(
    node: NodeFile, rows: Iterable[ServiceSection], origins: list[tuple[Origin, int]]
) -> None:
    """Let the node file's own checks speak about all rows together."""
    written = len(node.services)
    for key, text in check_services(node.model_copy(update={"services": (*node.services, *rows)})):
        index = key[1] if key[0] == "services" and len(key) > 1 else None
        if isinstance(index, int) and index >= written:
            origin, line = origins[index - written]
            raise ManifestError(f"{origin.file}:{line}: {origin}: {text}")
