"""Slow twin of the policy manifests: a packet against the manifests themselves, as dictionaries.

Knows nothing of identities, map entries or prefixes; one question at a time: does this policy
select the pod, does this rule mean the other side, does it name the port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

__all__ = ["ALLOWED", "DENIED", "DENY", "Packet", "Pod", "World", "decide"]

ALLOWED, DENIED, DENY = 0, 133, 181
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}
Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod as a selector sees it."""

    name: str
    namespace: str
    labels: dict[str, str]
    ip: str


@dataclass(frozen=True)
class World:
    """Everything policies can mean."""

    pods: list[Pod]
    namespaces: dict[str, dict[str, str]]
    """Labels of each namespace."""
    policies: list[Object]
    host: str
    remote: str
    """Address of another node."""


@dataclass(frozen=True)
class Packet:
    """What reaches or leaves a pod: the other side's address, protocol, port or ICMP type."""

    other: str
    proto: int
    port: int
    direction: str = field(default="ingress")


def selected(selector: Object, labels: dict[str, str]) -> bool:
    """Kubernetes label selectors, by the book."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        has, values = one["key"] in labels, one.get("values", [])
        inside = has and labels[one["key"]] in values
        fits = {"In": inside, "NotIn": not inside, "Exists": has, "DoesNotExist": not has}
        if not fits[one["operator"]]:
            return False
    return True


def pod_of(world: World, address: str) -> Pod | None:
    """Who has an address."""
    return next((pod for pod in world.pods if pod.ip == address), None)


def in_block(world: World, address: str, cidr: str, excepts: list[str]) -> bool:
    """An address of the world in a block; pods and nodes are never meant by one."""
    if pod_of(world, address) or address in (world.host, world.remote):
        return False
    one = ip_address(address)
    return one in ip_network(cidr) and not any(one in ip_network(block) for block in excepts)


# ---- NetworkPolicy ----


def k8s_peer(world: World, namespace: str, peer: Object, address: str) -> bool:
    """Whether a peer of a NetworkPolicy in ``namespace`` is the one with ``address``."""
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return in_block(world, address, block["cidr"], block.get("except", []))
    pod = pod_of(world, address)
    if pod is None or not selected(peer.get("podSelector", {}), pod.labels):
        return False
    if "namespaceSelector" not in peer:
        return pod.namespace == namespace
    return selected(peer["namespaceSelector"], world.namespaces[pod.namespace])


def k8s_port(port: Object, packet: Packet) -> bool:
    """Whether a port of a NetworkPolicy is the packet's."""
    if NUMBERS[port.get("protocol", "TCP")] != packet.proto:
        return False
    if "port" not in port:
        return True
    return bool(port["port"] <= packet.port <= port.get("endPort", port["port"]))


def k8s_decide(world: World, policy: Object, pod: Pod, packet: Packet) -> tuple[bool, bool, bool]:
    """(isolates the pod, allows the packet, denies it)."""
    spec, namespace = policy["spec"], policy["metadata"]["namespace"]
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    types = spec.get("policyTypes") or default
    if pod.namespace != namespace or not selected(spec["podSelector"], pod.labels):
        return False, False, False
    if packet.direction.capitalize() not in types:
        return False, False, False
    side = "from" if packet.direction == "ingress" else "to"
    for rule in spec.get(packet.direction, []):
        peers, ports = rule.get(side), rule.get("ports")
        who = not peers or any(k8s_peer(world, namespace, one, packet.other) for one in peers)
        if who and (not ports or any(k8s_port(one, packet) for one in ports)):
            return True, True, False
    return True, False, False


# ---- CiliumNetworkPolicy ----


def cilium_selected(world: World, namespace: str, selector: Object, pod: Pod) -> bool:
    """Cilium's selectors: the namespace is a label, and implied by a namespaced policy."""
    labels = pod.labels | {"io.kubernetes.pod.namespace": pod.namespace}
    keys = {*selector.get("matchLabels", {})}
    keys |= {one["key"] for one in selector.get("matchExpressions", [])}
    if namespace and "io.kubernetes.pod.namespace" not in keys and pod.namespace != namespace:
        return False
    return selected(selector, labels)


def entity(world: World, name: str, address: str) -> bool:
    """Whether an entity is the one with ``address``."""
    host, remote = address == world.host, address == world.remote
    pod = pod_of(world, address) is not None
    return {
        "all": True,
        "host": host,
        "remote-node": remote,
        "cluster": host or remote or pod,
        "world": not (host or remote or pod),
    }[name]


def cilium_peers(world: World, namespace: str, rule: Object, side: str, address: str) -> bool:
    """Whether the rule's peers are the one with ``address``; ports alone mean anybody."""
    pod = pod_of(world, address)
    named = False
    for item in rule.get(f"{side}Endpoints", []):
        named = True
        if pod is not None and cilium_selected(world, namespace, item, pod):
            return True
    for item in rule.get(f"{side}Entities", []):
        named = True
        if entity(world, item, address):
            return True
    for item in rule.get(f"{side}CIDRSet", []):
        named = True
        if in_block(world, address, item["cidr"], item.get("except", [])):
            return True
    return not named and ("toPorts" in rule or "icmps" in rule)


def cilium_ports(rule: Object, packet: Packet) -> bool:
    """Whether the rule's ports and ICMP types are the packet's."""
    if "toPorts" not in rule and "icmps" not in rule:
        return True
    for item in rule.get("toPorts", []):
        for port in item["ports"]:
            name = port.get("protocol", "ANY")
            protos = [17, 6, 132] if name == "ANY" else [NUMBERS[name]]
            first = int(port["port"])
            last = port.get("endPort", first)
            if packet.proto in protos and (first == 0 or first <= packet.port <= last):
                return True
    return any(
        packet.proto == 1 and packet.port == one["type"]
        for item in rule.get("icmps", [])
        for one in item["fields"]
    )


def cilium_decide(
    world: World, policy: Object, pod: Pod, packet: Packet
) -> tuple[bool, bool, bool]:
    """(isolates the pod, allows the packet, denies it)."""
    spec, namespace = policy["spec"], policy["metadata"].get("namespace", "")
    if not cilium_selected(world, namespace, spec["endpointSelector"], pod):
        return False, False, False
    side = "from" if packet.direction == "ingress" else "to"
    allows, denies = (
        any(
            cilium_peers(world, namespace, rule, side, packet.other) and cilium_ports(rule, packet)
            for rule in spec.get(section, [])
        )
        for section in (packet.direction, f"{packet.direction}Deny")
    )
    isolates = bool(spec.get(packet.direction) or spec.get(f"{packet.direction}Deny"))
    isolates = spec.get("enableDefaultDeny", {}).get(packet.direction, isolates)
    return isolates, allows, denies


def decide(world: World, pod: Pod, packet: Packet) -> int:
    """Return the drop reason of a packet of ``pod``, 0 = allowed."""
    answers = [
        (k8s_decide if policy["kind"] == "NetworkPolicy" else cilium_decide)(
            world, policy, pod, packet
        )
        for policy in world.policies
    ]
    if any(denies for _, _, denies in answers):
        return DENY
    if any(allows for _, allows, _ in answers):
        return ALLOWED
    if packet.direction == "ingress" and packet.other == world.host:
        return ALLOWED  # the node may always reach its own pods
    return DENIED if any(isolates for isolates, _, _ in answers) else ALLOWED
