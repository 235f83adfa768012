"""The sending node in slow: what becomes of the first packet of a flow, from the rules alone.

Written from datapath.md 1.2 to 1.5, 4.1 to 4.3, 5.3 to 5.6 and 6.4, without tables: services and
rules are scanned, prefixes compared one by one. Of a drawn backend every outcome is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address, ip_network

__all__ = ["Backend", "Packet", "Pod", "Prefix", "Rule", "Service", "World", "outcomes"]

TUNNEL_PORT, LOOPBACK, WORLD_ID, HOST_ID = 8472, "169.254.42.1", 2, 1
PORTS = ("tcp", "udp", "sctp")
NO_BACKEND, POLICY_DENIED, POLICY_DENY, ENCAP_PROHIBITED, TTL_EXCEEDED = 158, 133, 181, 170, 196
Outcome = tuple[object, ...]
"""(drop,) or (verdict, where, VNI, source, destination, port or type, TTL)."""


@dataclass(frozen=True)
class Pod:
    """A local endpoint; which directions are enforced."""

    name: str
    ip: str
    identity: int
    ingress: bool
    egress: bool


@dataclass(frozen=True)
class Prefix:
    """An ipcache row."""

    prefix: str
    identity: int
    tunnel: str | None = None
    skip: bool = False


@dataclass(frozen=True)
class Backend:
    """One backend of a service."""

    ip: str
    port: int
    active: bool


@dataclass(frozen=True)
class Service:
    """A frontend in one scope."""

    ip: str
    port: int
    proto: str
    scope: str
    two_scopes: bool
    backends: tuple[Backend, ...]


@dataclass(frozen=True)
class Rule:
    """A policy rule; ``ports`` None = any."""

    pod: str
    direction: str
    identity: int | str
    proto: str
    ports: tuple[int, int] | None
    deny: bool


@dataclass(frozen=True)
class World:
    """One node."""

    pods: tuple[Pod, ...]
    own: tuple[str, ...]
    """Its addresses, the router's last."""
    prefixes: tuple[Prefix, ...]
    """All of the ipcache, a later row of the same prefix counts."""
    services: tuple[Service, ...]
    rules: tuple[Rule, ...]
    tunnel: bool
    frag_needed: bool


@dataclass(frozen=True)
class Packet:
    """The first of its flow; ``port`` is the ICMP type."""

    pod: Pod
    dst: str
    proto: str
    port: int
    ttl: int
    code: int = 0


def longest(world: World, address: str) -> Prefix:
    """The row of the longest prefix; without an identity it counts as no row (1.4/2)."""
    rows = {row.prefix: row for row in world.prefixes}
    inside = [prefix for prefix in rows if ip_address(address) in ip_network(prefix)]
    row = rows[max(inside, key=lambda prefix: ip_network(prefix).prefixlen)]
    return row if row.identity else Prefix(row.prefix, WORLD_ID)


def judge(world: World, pod: Pod, direction: str, identity: int, packet: Packet, port: int) -> int:
    """Policy's drop reason, 0 = allowed (5.3)."""
    if direction == "egress" and packet.proto == "udp" and port == TUNNEL_PORT:
        return ENCAP_PROHIBITED
    if world.frag_needed and (packet.proto, port, packet.code) == ("icmp", 3, 4):
        return 0
    found = [
        rule.deny
        for rule in world.rules
        if (rule.pod, rule.direction) == (pod.name, direction)
        and rule.identity in ("any", identity)
        and rule.proto in ("any", packet.proto)
        and (rule.ports is None or rule.ports[0] <= port <= rule.ports[1])
    ]
    if any(found):
        return POLICY_DENY
    enforced = pod.ingress if direction == "ingress" else pod.egress
    implied = not enforced or (direction == "ingress" and identity == HOST_ID)
    return 0 if found or implied else POLICY_DENIED


def frontend(world: World, packet: Packet, scope: str) -> Service | None:
    """The service of a scope that the packet goes to (4.1)."""
    key = (packet.dst, packet.port, packet.proto, scope)
    same = (one for one in world.services if (one.ip, one.port, one.proto, one.scope) == key)
    return next(same, None)


def outcomes(world: World, packet: Packet) -> list[Outcome]:
    """All outcomes that would be right."""
    service = frontend(world, packet, "external") if packet.proto in PORTS else None
    if service is not None and service.two_scopes:
        service = frontend(world, packet, "internal")
    if service is None:
        return [forward(world, packet, packet.dst, packet.port, itself=False)]
    return [
        forward(world, packet, one.ip, one.port, itself=one.ip == packet.pod.ip)
        for one in service.backends
        if one.active
    ] or [(NO_BACKEND,)]


def forward(world: World, packet: Packet, dst: str, port: int, *, itself: bool) -> Outcome:
    """Identity, policy and way of a packet behind the services (1.4)."""
    row = longest(world, dst)
    drop = 0 if itself else judge(world, packet.pod, "egress", row.identity, packet, port)
    if drop:
        return (drop,)
    source = LOOPBACK if itself else packet.pod.ip
    receiver = next((pod for pod in world.pods if pod.ip == dst), None)
    if dst == world.own[-1] and (packet.proto, port) == ("icmp", 8):
        return ("PUNT",)
    if receiver is None and dst not in world.own and world.tunnel and row.tunnel and not row.skip:
        return ("TX_UNDERLAY", row.tunnel, packet.pod.identity, source, dst, port, packet.ttl)
    if packet.ttl <= 1:
        return (TTL_EXCEEDED,)
    if receiver is None:
        return ("TO_STACK", None, 0, source, dst, port, packet.ttl - 1)
    me = packet.pod.identity
    drop = 0 if itself else judge(world, receiver, "ingress", me, packet, port)
    return (drop,) if drop else (
        "TX_ENDPOINT", receiver.name, 0, source, dst, port, packet.ttl - 1)  # fmt: skip
