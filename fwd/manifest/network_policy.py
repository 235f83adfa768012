"""networking.k8s.io/v1 NetworkPolicy.

Absent and empty differ: no ``from`` means anybody, an empty rule list means nobody, ``{}`` as a
selector means all pods of the namespace. Ports of other protocols stay denied once ports are named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fwd.manifest.meta import OBJECT_KEYS, PORT_MAX, port_range, read_meta, read_selector
from fwd.model.manifest import Peer, Policy, PolicyRule, PortMatch
from fwd.model.selector import NAMESPACE_LABEL, NAMESPACE_PREFIX, Requirement, Selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwd.manifest.reader import Field
    from fwd.model.policy import Direction
    from fwd.model.rows import Network

__all__ = ["PROTOS", "read_cidr_block", "read_network_policy"]

PROTOS: dict[str, Literal["tcp", "udp", "sctp"]] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


def read_network_policy(top: Field) -> Policy:
    """Read one NetworkPolicy."""
    document = top.mapping((*OBJECT_KEYS, "spec"), ("status",))
    meta = read_meta(document, top)
    if "spec" not in document:
        top.fail("spec: missing, add it")
    spec = document["spec"].mapping(("podSelector", "policyTypes", "ingress", "egress"))
    subject = read_selector(spec["podSelector"]) if "podSelector" in spec else Selector()
    own = Requirement(NAMESPACE_LABEL, "In", (meta.namespace,))
    types = _types(spec)
    rules: list[PolicyRule] = []
    directions: tuple[Direction, ...] = ("ingress", "egress")
    for direction in directions:
        if direction not in spec:
            continue
        items = spec[direction].items()
        if items and direction not in types:
            spec[direction].fail(
                f"policyTypes leaves {direction} out, so these rules would do nothing: "
                "add the type or remove them"
            )
        rules += (_rule(item, index, direction, meta.namespace) for index, item in enumerate(items))
    return Policy(
        origin=meta.origin,
        subject=subject.and_(own),
        ingress="ingress" in types,
        egress="egress" in types,
        rules=tuple(rules),
    )


def _types(spec: Mapping[str, Field]) -> set[str]:
    """Return the directions a policy speaks of; left out: ingress, and egress with egress rules."""
    listed = spec["policyTypes"].items() if "policyTypes" in spec else ()
    if listed:
        return {item.choice("Ingress", "Egress").lower() for item in listed}
    return {"ingress", "egress"} if "egress" in spec and spec["egress"].items() else {"ingress"}


def _rule(field: Field, index: int, direction: Direction, namespace: str) -> PolicyRule:
    key = "from" if direction == "ingress" else "to"
    data = field.mapping((key, "ports"))
    items = data[key].items() if key in data else ()
    ports = data["ports"].items() if "ports" in data else ()
    return PolicyRule(
        direction=direction,
        action="allow",
        index=index,
        line=field.line,
        peers=tuple(_peer(item, namespace) for item in items) if items else None,
        ports=tuple(_port(item) for item in ports),
    )


def _peer(field: Field, namespace: str) -> Peer:
    data = field.mapping(("podSelector", "namespaceSelector", "ipBlock"))
    if not data:
        field.fail("an empty peer means nobody, write podSelector, namespaceSelector or ipBlock")
    if "ipBlock" in data:
        if len(data) > 1:
            data["ipBlock"].fail("it stands alone, write it as a peer of its own")
        cidr, excepts = read_cidr_block(data["ipBlock"])
        return Peer(cidr=cidr, excepts=excepts)
    selector = read_selector(data["podSelector"]) if "podSelector" in data else Selector()
    if "namespaceSelector" not in data:
        return Peer(selector=selector.and_(Requirement(NAMESPACE_LABEL, "In", (namespace,))))
    spaces = read_selector(data["namespaceSelector"], lambda key: NAMESPACE_PREFIX + key)
    # every pod has a namespace: this keeps `{}` from meaning more than all pods
    of_pods = Requirement(NAMESPACE_LABEL, "Exists")
    return Peer(selector=selector.and_(*spaces.requirements, of_pods))


def read_cidr_block(
    field: Field, refused: Mapping[str, str] | None = None
) -> tuple[Network, tuple[Network, ...]]:
    """Read ``cidr`` and ``except``, as NetworkPolicy and Cilium write them."""
    data = field.mapping(("cidr", "except"), (), refused)
    if "cidr" not in data:
        field.fail("cidr: missing, add it")
    cidr = data["cidr"].network()
    excepts = []
    for item in data["except"].items() if "except" in data else ():
        one = item.network()
        if not _is_within(one, cidr) or one == cidr:
            item.fail(f"{one} is not a part of {cidr}, write a prefix inside it")
        excepts.append(one)
    return cidr, tuple(excepts)


def _is_within(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


def _port(field: Field) -> PortMatch:
    data = field.mapping(("protocol", "port", "endPort"))
    name = PROTOS[data["protocol"].choice(*PROTOS)] if "protocol" in data else "tcp"
    if "port" not in data:
        if "endPort" in data:
            data["endPort"].fail("it needs port, add the first one")
        return PortMatch(name)
    port = data["port"].number_text(1, PORT_MAX)
    return PortMatch(name, port_range(port, data.get("endPort")))
