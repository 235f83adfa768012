"""What the values of a node file must have to do with each other, and which have no effect yet.

Pure. Both functions give (key path, text) pairs; fwd/config/load.py adds file and line.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from fwd.config.check_services import check_services, unused_services
from fwd.model.identity import HOST

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from fwd.config.schema import NodeFile, PolicySection
    from fwd.model.rows import Address, Network

__all__ = ["KeyPath", "check", "unused"]

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]

RESERVED_PORTS = frozenset({"cilium_host", "netdev", "overlay"})
PORT_PROTOS = frozenset({"tcp", "udp", "sctp"})
ICMP_TYPE_MAX = 255


def check(node: NodeFile) -> list[Problem]:
    """Return every contradiction in ``node``: (key path, "what is wrong, what to do")."""
    return [
        *_prefixes(node),
        *_addresses(node),
        *_names(node),
        *_peers(node),
        *_ipcache(node),
        *_policy(node),
        *check_services(node),
    ]


def unused(node: NodeFile) -> list[Problem]:
    """Return what ``node`` asks for and this version does not do."""
    return [*unused_services(node), *_strangers(node)]


def _strangers(node: NodeFile) -> Iterator[Problem]:
    """A tunnel that goes out and does not come back."""
    peers = {peer.ip for peer in node.peers} | {node.node.ip, None}
    for index, row in enumerate(node.ipcache):
        if node.tunnel.verify.peer and row.tunnel_endpoint not in peers:
            text = f"{row.tunnel_endpoint} is no peer, what comes back is dropped: add it to peers"
            yield ("ipcache", index, "tunnel_endpoint"), text


def unsteered(node: NodeFile) -> list[str]:
    """Return what replay and trace do and a running daemon does not, with file and line."""
    if not node.features.nodeport:
        return []
    rows = [one for one in node.services if "routable" in one.flags and one.scope == "external"]
    six = {one.name for one in rows if one.frontend.version == 6}
    own = {node.node.ip, *node.node.router_ip}
    host = {one.name for one in rows for backend in one.backends if backend.ip in own}
    what = (
        (six, "a running daemon is given IPv4 from outside only, replay and trace act on it"),
        (host, "the node's own answers do not pass a running daemon, so clients outside get none"),
    )
    where = f"{node.place(node.features.line)}: features.nodeport"
    return [f"{where}: {', '.join(sorted(names))}: {text}" for names, text in what if names]


def _pod_prefixes(node: NodeFile) -> Iterator[tuple[KeyPath, str, Network]]:
    for prefix in node.node.pod_cidr:
        yield ("node", "pod_cidr"), f"node {node.node.name}", prefix
    for index, peer in enumerate(node.peers):
        for prefix in peer.pod_cidr:
            yield ("peers", index, "pod_cidr"), f"peer {peer.name}", prefix


def _prefixes(node: NodeFile) -> Iterator[Problem]:
    """Pod CIDRs must not overlap: a pod address belongs to one node."""
    seen: list[tuple[str, Network]] = []
    for key, owner, prefix in _pod_prefixes(node):
        for other, taken in seen:
            if taken.version == prefix.version and taken.overlaps(prefix):
                yield key, f"{prefix} overlaps {taken} of {other}, give every node its own range"
        seen.append((owner, prefix))


def _own_addresses(node: NodeFile) -> Iterator[tuple[KeyPath, str, Address]]:
    yield ("node", "ip"), "the node", node.node.ip
    if node.node.ip6 is not None:
        yield ("node", "ip6"), "the node", node.node.ip6
    for address in node.node.router_ip:
        yield ("node", "router_ip"), "the router", address
    for address in node.node.loopback_ip:
        yield ("node", "loopback_ip"), "the loopback", address
    for index, peer in enumerate(node.peers):
        yield ("peers", index, "ip"), f"peer {peer.name}", peer.ip
        for address in peer.router_ip:
            yield ("peers", index, "router_ip"), f"peer {peer.name}'s router", address
    for index, endpoint in enumerate(node.endpoints):
        for address in endpoint.ip:
            yield ("endpoints", index, "ip"), f"endpoint {endpoint.name}", address


def _addresses(node: NodeFile) -> Iterator[Problem]:
    """One owner an address; pods and their gateway live in the node's pod CIDR."""
    owners: dict[Address, str] = {}
    for key, owner, address in _own_addresses(node):
        if address in owners:
            yield key, f"{address} is {owners[address]}'s already, every address has one owner"
        owners.setdefault(address, owner)
        if key[0] != "endpoints" and key != ("node", "router_ip"):
            continue
        if not any(address in prefix for prefix in node.node.pod_cidr):
            ranges = ", ".join(map(str, node.node.pod_cidr)) or "not set"
            yield key, f"{address} is outside node.pod_cidr ({ranges}), take one of its addresses"


def _duplicates(rows: Iterator[tuple[KeyPath, Hashable]], advice: str) -> Iterator[Problem]:
    seen: dict[Hashable, KeyPath] = {}
    for key, value in rows:
        if value in seen:
            section, index = seen[value][:2]
            yield key, f"{value} stands in {section}[{index}] already, {advice}"
        seen.setdefault(value, key)


def _names(node: NodeFile) -> Iterator[Problem]:
    """Endpoints are told apart by name, id and device."""
    for key in ("name", "id", "ifname"):
        rows = (
            (("endpoints", index, key), getattr(endpoint, key))
            for index, endpoint in enumerate(node.endpoints)
        )
        yield from _duplicates(rows, f"every endpoint has its own {key}")
    for index, endpoint in enumerate(node.endpoints):
        if endpoint.name in RESERVED_PORTS:
            text = f"'{endpoint.name}' names a port of the node, choose another name"
            yield ("endpoints", index, "name"), text


def _peers(node: NodeFile) -> Iterator[Problem]:
    rows = ((("peers", index, "name"), peer.name) for index, peer in enumerate(node.peers))
    yield from _duplicates(rows, "every peer has its own name")
    for index, peer in enumerate(node.peers):
        if peer.name == node.node.name:
            yield ("peers", index, "name"), f"'{peer.name}' is this node, leave it out or rename it"
        if peer.vni is not None and peer.identity is None:
            text = "a fixed VNI carries no identity, add `identity` for all that comes from there"
            yield ("peers", index, "vni"), text
        if peer.identity is not None and peer.vni is None:
            text = "the VNI carries the identity, add `vni` for a plain VXLAN peer or remove this"
            yield ("peers", index, "identity"), text


def _ipcache(node: NodeFile) -> Iterator[Problem]:
    rows = ((("ipcache", index, "prefix"), row.prefix) for index, row in enumerate(node.ipcache))
    yield from _duplicates(rows, "write one row a prefix")
    for index, row in enumerate(node.ipcache):
        if "identity" not in row.model_fields_set and row.pod is None:
            text = "whose is it? write identity (a number) or pod (namespace/name)"
            yield ("ipcache", index), text
        if row.tunnel_endpoint not in (None, node.node.ip) and row.identity >> 24:
            text = f"{row.identity} does not fit the 24-bit VNI, an identity behind a tunnel must"
            yield ("ipcache", index, "identity"), text
    yield from _local_rows(node)


def _local_rows(node: NodeFile) -> Iterator[Problem]:
    """What is here has the identity it has here, and no tunnel leads to it."""
    own = dict.fromkeys((node.node.ip, *node.node.router_ip), ("this node", HOST))
    own |= {address: (f"endpoint {one.name}", one.identity)
            for one in node.endpoints for address in one.ip}  # fmt: skip
    for index, row in enumerate(node.ipcache):
        is_one = row.prefix.prefixlen == row.prefix.max_prefixlen
        name, identity = own.get(row.prefix.network_address, ("", 0)) if is_one else ("", 0)
        if name and row.identity and identity not in (0, row.identity):
            text = f"{row.prefix} is {name}, whose identity is {identity}: write that, or no row"
            yield ("ipcache", index, "identity"), text
        if name and row.tunnel_endpoint not in (None, node.node.ip):
            text = f"{row.prefix} is {name}, no tunnel leads here: remove tunnel_endpoint"
            yield ("ipcache", index, "tunnel_endpoint"), text


def _policy(node: NodeFile) -> Iterator[Problem]:
    known = [endpoint.name for endpoint in node.endpoints]
    for index, rule in enumerate(node.policy):
        if rule.endpoint not in known:
            near = get_close_matches(rule.endpoint, known, n=1, cutoff=0.3)
            hint = f"did you mean '{near[0]}'?" if near else "add it to endpoints"
            yield ("policy", index, "endpoint"), f"no endpoint is named '{rule.endpoint}', {hint}"
        text = _port_problem(rule)
        if text:
            yield ("policy", index, "port"), text


def _port_problem(rule: PolicySection) -> str | None:
    """Return what is wrong with a rule's port for its protocol."""
    if rule.port is None:
        return None
    if rule.proto == "any":
        return "a port needs its protocol, set proto to tcp, udp or sctp"
    if rule.proto in PORT_PROTOS:
        return "port 0 cannot be matched, write any or 1..65535" if rule.port.first == 0 else None
    if rule.port.last > ICMP_TYPE_MAX:
        return f"of {rule.proto} this is the type, write any or 0..{ICMP_TYPE_MAX}"
    return None
