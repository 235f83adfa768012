"""cilium.io/v2 CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, layers 3 and 4.

A direction is denied by default once a policy has a rule for it; a rule without peers and ports
(``- {}``) allows nobody and only does that. Labels may be written with their source
(``k8s:app``, ``any:app``); in a namespaced policy selectors mean pods of its namespace unless they
name one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fwd.manifest.meta import OBJECT_KEYS, PORT_MAX, port_range, read_meta, read_selector
from fwd.manifest.network_policy import PROTOS, read_cidr_block
from fwd.model.manifest import Peer, Policy, PolicyRule, PortMatch
from fwd.model.policy import PortRange
from fwd.model.selector import NAMESPACE_LABEL, NAMESPACE_PREFIX, Requirement, Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fwd.manifest.meta import Meta
    from fwd.manifest.reader import Field
    from fwd.model.manifest import Entity
    from fwd.model.policy import Action, Direction, Proto

__all__ = ["read_cilium_policies"]

_SECTIONS: Final[dict[str, tuple[Direction, Action]]] = {
    "ingress": ("ingress", "allow"),
    "ingressDeny": ("ingress", "deny"),
    "egress": ("egress", "allow"),
    "egressDeny": ("egress", "deny"),
}
_ENTITIES: Final[tuple[Entity, ...]] = ("world", "host", "cluster", "remote-node", "all")
_L7 = "rules of layer 7"
_RULE_REFUSED = {
    "toFQDNs": "rules by DNS name",
    "toServices": "rules by service",
    "toGroups": "groups of a cloud provider",
    "fromGroups": "groups of a cloud provider",
    "toNodes": "rules by node label",
    "fromNodes": "rules by node label",
    "toRequires": "required labels",
    "fromRequires": "required labels",
    "authentication": "mutual authentication",
}
_PORTS_REFUSED = {
    "rules": _L7,
    "terminatingTLS": _L7,
    "originatingTLS": _L7,
    "serverNames": _L7,
    "listener": _L7,
}
_CIDR_REFUSED = {"cidrGroupRef": "CIDR groups", "cidrGroupSelector": "CIDR groups"}
_ICMP_NAMES: Final[dict[Proto, dict[str, int]]] = {
    "icmp": {
        "EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
        "RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11,
        "ParameterProblem": 12, "Timestamp": 13, "TimestampReply": 14, "Photuris": 40,
        "ExtendedEchoRequest": 42, "ExtendedEchoReply": 43,
    },
    "icmpv6": {
        "DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
        "EchoRequest": 128, "EchoReply": 129, "RouterSolicitation": 133,
        "RouterAdvertisement": 134, "NeighborSolicitation": 135, "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
    },
}  # fmt: skip


def read_cilium_policies(top: Field, *, clusterwide: bool) -> Iterator[Policy]:
    """Read ``spec`` and every item of ``specs``, each a policy of the same name."""
    document = top.mapping((*OBJECT_KEYS, "spec", "specs"), ("status",))
    meta = read_meta(document, top, namespaced=not clusterwide)
    specs = [document["spec"]] if "spec" in document else []
    specs += document["specs"].items() if "specs" in document else []
    if not specs:
        top.fail("spec: missing, add it")
    for spec in specs:
        yield _policy(spec, meta)


def _policy(field: Field, meta: Meta) -> Policy:
    spec = field.mapping(
        ("endpointSelector", "enableDefaultDeny", *_SECTIONS),
        ("description", "labels"),
        {"nodeSelector": "policies of nodes (the host firewall)"},
    )
    if "endpointSelector" not in spec:
        field.fail("endpointSelector: missing, write {} for all endpoints")
    rules: list[PolicyRule] = []
    spoken: set[str] = set()
    for section, (direction, action) in _SECTIONS.items():
        for index, item in enumerate(spec[section].items() if section in spec else ()):
            rules.append(_rule(item, index, direction, action, meta.namespace))
            spoken.add(direction)
    deny = {"ingress": "ingress" in spoken, "egress": "egress" in spoken}
    if "enableDefaultDeny" in spec:
        chosen = spec["enableDefaultDeny"].mapping(("ingress", "egress"))
        deny |= {direction: one.boolean() for direction, one in chosen.items()}
    return Policy(
        origin=meta.origin,
        subject=_subject(spec["endpointSelector"], meta.namespace),
        ingress=deny["ingress"],
        egress=deny["egress"],
        rules=tuple(rules),
    )


def _label_key(text: str) -> str:
    """Return a label's key without its source; namespace labels keep Cilium's spelling."""
    source, colon, key = text.partition(":")
    if not colon:
        return text
    if source in ("k8s", "any"):
        return key
    if source == "reserved":
        raise ValueError(f"{text!r}: write the entity (fromEntities, toEntities) instead")
    raise ValueError(f"{text!r}: labels of source {source!r} are not known here, write k8s:{key}")


def _selector(field: Field, namespace: str) -> Selector:
    """Read a selector: of the policy's namespace, or of any for a clusterwide one."""
    selector = read_selector(field, _label_key)
    if any(
        one.key == NAMESPACE_LABEL or one.key.startswith(NAMESPACE_PREFIX)
        for one in selector.requirements
    ):
        return selector
    if namespace:
        return selector.and_(Requirement(NAMESPACE_LABEL, "In", (namespace,)))
    return selector.and_(Requirement(NAMESPACE_LABEL, "Exists"))


def _subject(field: Field, namespace: str) -> Selector:
    """Read whom a policy selects: a namespaced one nobody outside its namespace, whatever it says.

    Cilium overwrites another namespace with a warning; here it is an error.
    """
    selector = _selector(field, namespace)
    own = Requirement(NAMESPACE_LABEL, "In", (namespace,))
    if not namespace or own in selector.requirements:
        return selector
    for one in selector.requirements:
        if one.key == NAMESPACE_LABEL and not one.holds({NAMESPACE_LABEL: namespace}):
            field.fail(
                f"it selects in {namespace} only, where the policy is: remove the other namespace, "
                "or write a CiliumClusterwideNetworkPolicy"
            )
    return selector.and_(own)


def _rule(
    field: Field, index: int, direction: Direction, action: Action, namespace: str
) -> PolicyRule:
    side = "from" if direction == "ingress" else "to"
    keys = tuple(f"{side}{what}" for what in ("Endpoints", "Entities", "CIDR", "CIDRSet"))
    data = field.mapping((*keys, "toPorts", "icmps"), (), _RULE_REFUSED)
    readers: tuple[Callable[[Field], Iterator[Peer]], ...] = (
        partial(_endpoints, namespace=namespace), _entities, _cidrs, _cidr_set,
    )  # fmt: skip
    named = any(key in data for key in keys)
    ports = (*_ports(data.get("toPorts")), *_icmps(data.get("icmps")))
    peers: list[Peer] = []
    for key, reader in zip(keys, readers, strict=True):
        if key in data:
            peers += reader(data[key])
    return PolicyRule(
        direction=direction,
        action=action,
        index=index,
        line=field.line,
        peers=tuple(peers) if named or not ports else None,
        ports=ports,
    )


# ---- peers ----


def _endpoints(field: Field, namespace: str) -> Iterator[Peer]:
    for item in field.items():
        yield Peer(selector=_selector(item, namespace))


def _entities(field: Field) -> Iterator[Peer]:
    for item in field.items():
        yield Peer(entity=item.choice(*_ENTITIES))


def _cidrs(field: Field) -> Iterator[Peer]:
    for item in field.items():
        yield Peer(cidr=item.network())


def _cidr_set(field: Field) -> Iterator[Peer]:
    for item in field.items():
        cidr, excepts = read_cidr_block(item, _CIDR_REFUSED)
        yield Peer(cidr=cidr, excepts=excepts)


# ---- ports ----


def _ports(field: Field | None) -> Iterator[PortMatch]:
    for item in field.items() if field else ():
        data = item.mapping(("ports",), (), _PORTS_REFUSED)
        if "ports" not in data:
            item.fail("ports: missing, add at least one")
        for port in data["ports"].items():
            yield from _port(port)


def _port(field: Field) -> Iterator[PortMatch]:
    data = field.mapping(("port", "endPort", "protocol"))
    if "port" not in data and "protocol" not in data:
        field.fail("port: missing, add it")
    ports: PortRange | None = None
    if "port" in data:
        first = data["port"].number_text(0, PORT_MAX)
        if first == 0 and "endPort" in data:
            data["endPort"].fail("port 0 means all ports already, remove one of the two")
        ports = port_range(first, data.get("endPort")) if first else None
    elif "endPort" in data:
        data["endPort"].fail("it needs port, add the first one")
    name = "ANY"
    if "protocol" in data:
        name = data["protocol"].choice("TCP", "UDP", "SCTP", "ANY")
    for proto, number in PROTOS.items():
        if name in (proto, "ANY"):
            yield PortMatch(number, ports)


def _icmps(field: Field | None) -> Iterator[PortMatch]:
    for item in field.items() if field else ():
        data = item.mapping(("fields",))
        if "fields" not in data:
            item.fail("fields: missing, add at least one")
        for one in data["fields"].items():
            yield _icmp(one)


def _icmp(field: Field) -> PortMatch:
    data: Mapping[str, Field] = field.mapping(("family", "type"))
    if "type" not in data:
        field.fail("type: missing, add the ICMP type")
    proto: Proto = "icmp"
    if "family" in data and data["family"].choice("IPv4", "IPv6") == "IPv6":
        proto = "icmpv6"
    kind = data["type"]
    if not kind.is_number and kind.text() in _ICMP_NAMES[proto]:
        number = _ICMP_NAMES[proto][kind.text()]
    else:
        number = kind.number_text(0, 255)
    return PortMatch(proto, PortRange(number, number))
