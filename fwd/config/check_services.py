"""What the services of a node file must have to do with each other, and which wishes wait.

Pure; the same pairs as fwd/config/check.py, which asks this module for its section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.config.schema import NodeFile, ServiceSection

__all__ = ["check_services", "unused_services"]

Problem = tuple[tuple[str | int, ...], str]

FRONTENDS_MAX = 65535
"""rev_nat_id is a 16-bit number from 1."""
NORTH_SOUTH = (
    "node_port",
    "external_ip",
    "host_port",
    "load_balancer",
    "ext_local",
    "source_range",
)
"""Flags that only speak of traffic from outside."""


def check_services(node: NodeFile) -> Iterator[Problem]:
    """Yield every contradiction of the services: (key path, "what is wrong, what to do")."""
    families = [address.version for address in node.node.loopback_ip]
    if len(set(families)) != len(families):
        yield ("node", "loopback_ip"), "a hairpin has one source a family, write one of each"
    yield from _frontends(node)
    yield from _tunnel_port(node)
    states: dict[tuple[object, ...], tuple[str, str]] = {}
    for index, service in enumerate(node.services):
        yield from _service(index, service)
        yield from _shared(index, service, states)


def _frontends(node: NodeFile) -> Iterator[Problem]:
    """A frontend and scope stands once; what both scopes share is the same in both."""
    seen: dict[tuple[object, ...], str] = {}
    own = dict.fromkeys(node.node.router_ip, "the router")
    own |= {address: f"endpoint {one.name}" for one in node.endpoints for address in one.ip}
    for index, one in enumerate(node.services):
        key = (one.frontend, one.port, one.proto, one.scope)
        if key in seen:
            text = (
                f"{one.frontend}:{one.port}/{one.proto} ({one.scope}) is service {seen[key]}'s "
                "already, write one row a frontend and scope"
            )
            yield ("services", index, "frontend"), text
        seen.setdefault(key, one.name)
        if one.frontend in own:
            text = f"{one.frontend} is {own[one.frontend]}, give the service its own address"
            yield ("services", index, "frontend"), text
    if len({key[:3] for key in seen}) > FRONTENDS_MAX:
        yield ("services",), f"more than {FRONTENDS_MAX} frontends, reverse NAT ids are 16 bits"


def _tunnel_port(node: NodeFile) -> Iterator[Problem]:
    """The tunnel's own datagrams must not be taken for a service's."""
    taken = (node.node.ip, node.tunnel.port, "udp")
    if not node.features.nodeport or node.tunnel.protocol != "vxlan":
        return
    for index, one in enumerate(node.services):
        if (one.frontend, one.port, one.proto) == taken and "routable" in one.flags:
            text = f"{one.port}/udp of {one.frontend} is the tunnel's, take another port"
            yield ("services", index, "port"), text


def _service(index: int, service: ServiceSection) -> Iterator[Problem]:
    """What one service must agree on with itself."""
    if service.frontend.is_unspecified or service.frontend.is_multicast:
        text = f"{service.frontend} is no frontend, write the service's address"
        yield ("services", index, "frontend"), text
    if "affinity" in service.flags and not service.affinity_timeout_s:
        text = "affinity needs affinity_timeout_s, add how many seconds a client sticks"
        yield ("services", index, "flags"), text
    seen: set[tuple[object, int]] = set()
    for slot, backend in enumerate(service.backends):
        where = ("services", index, "backends", slot)
        target = (backend.ip, backend.port)
        if backend.ip.version != service.frontend.version:
            text = f"{backend.ip} is not of the family of {service.frontend}, addresses are kept"
            yield (*where, "ip"), f"{text} within one family: give the frontend a twin"
        if target == (service.frontend, service.port):
            yield (*where, "ip"), f"{backend.ip}:{backend.port} is the frontend, write who answers"
        if target in seen:
            yield (*where, "ip"), f"{backend.ip}:{backend.port} stands here already, remove one"
        if service.proto == "sctp" and backend.port != service.port:
            text = f"{backend.port} is not the frontend's port, SCTP ports cannot be translated"
            yield (*where, "port"), f"{text}: write {service.port}"
        seen.add(target)


def _shared(
    index: int, service: ServiceSection, states: dict[tuple[object, ...], tuple[str, str]]
) -> Iterator[Problem]:
    """A backend has one state, whichever service it stands in."""
    for slot, backend in enumerate(service.backends):
        key = (backend.ip, backend.port, service.proto)
        other, state = states.setdefault(key, (service.name, backend.state))
        if state != backend.state:
            text = (
                f"{backend.ip}:{backend.port}/{service.proto} is {state} in service {other}, "
                "a backend has one state: write it everywhere"
            )
            yield ("services", index, "backends", slot, "state"), text


def unused_services(node: NodeFile) -> Iterator[Problem]:
    """Yield what the services ask for and this version does not do."""
    twins = {
        (one.frontend, one.port, one.proto)
        for one in node.services
        if one.scope == "external" and "two_scopes" in one.flags
    }
    for index, service in enumerate(node.services):
        flags = [flag for flag in NORTH_SOUTH if flag in service.flags]
        if flags and not node.features.nodeport:
            text = (
                f"{', '.join(flags)} has no effect without features.nodeport: pods reach "
                f"{service.frontend}, traffic from outside does not"
            )
            yield ("services", index, "flags"), text
        if service.source_ranges and "source_range" not in flags:
            text = "has no effect without the flag source_range, and none on pods"
            yield ("services", index, "source_ranges"), text
        if service.affinity_timeout_s and "affinity" not in service.flags:
            text = "has no effect without the flag affinity"
            yield ("services", index, "affinity_timeout_s"), text
        if service.scope == "internal" and (
            (service.frontend, service.port, service.proto) not in twins
        ):
            text = "internal is never looked at: its external row needs the flag two_scopes"
            yield ("services", index, "scope"), text
