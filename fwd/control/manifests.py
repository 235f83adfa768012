"""Manifests into the node file: what they say, written as its own sections.

Pure. ``expand`` gives a node file whose endpoints have identities and enforcement, with ipcache
rows of remote pods and CIDRs, service rows, and the rules of the policies; nothing below
(compile_world, devices, views) has to know where a row came from. What the node file writes itself
wins; where both say different things about the same pod, it is an error.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from fwd.config.schema import EndpointSection, IpcacheSection
from fwd.config.values import LINE_KEY
from fwd.control.cidrs import CidrIdentities
from fwd.control.identities import make_roster
from fwd.control.manifest_rules import RuleMaker, selecting
from fwd.control.manifest_services import make_services, service_warnings
from fwd.manifest.reader import ManifestError
from fwd.model.identity import WORLD
from fwd.model.selector import CLUSTER_LABEL, NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwd.config.schema import NodeFile
    from fwd.control.identities import Member, Roster
    from fwd.model.manifest import Manifests, Policy
    from fwd.model.policy import Rule
    from fwd.model.rows import Address, Network

__all__ = ["expand"]

_ID_MAX = 65535
_IMPLIED = {NAMESPACE_LABEL, CLUSTER_LABEL, SERVICE_ACCOUNT_LABEL}


def expand(node: NodeFile, manifests: Manifests) -> NodeFile:
    """Return ``node`` with everything that ``manifests`` add to it.

    Raises:
        ManifestError: node file and manifests contradict each other, or themselves.
    """
    roster = make_roster(node, manifests)
    _check_pods(node, roster)
    _check_rows(node, roster)
    endpoints = (*_endpoints(node, roster), *_new_endpoints(node, roster))
    chosen = selecting(manifests.policies, roster, (one.name for one in endpoints))
    cidrs = CidrIdentities(node, _prefixes(policy for policy, _ in chosen), _own(node, roster))
    maker = RuleMaker(node, roster, cidrs)
    rules = tuple(rule for policy, names in chosen for rule in maker.rules(policy, names))
    ipcache = (*_written_rows(node, roster), *_pod_rows(node, roster), *cidrs.rows())
    return node.model_copy(
        update={
            "endpoints": tuple(_enforce(endpoints, rules)),
            "ipcache": ipcache,
            "services": (*node.services, *make_services(node, manifests, roster)),
            "rules": rules,
            "identities": {
                number: tuple(f"k8s:{key}={labels[key]}" for key in sorted(labels))
                for number, labels in roster.labels.items()
            }
            | {number: (name,) for number, name in cidrs.names.items()},
            "warnings": (
                *node.warnings,
                *_warnings(node, roster),
                *service_warnings(manifests),
            ),
        }
    )


# ---- pods ----


def _check_pods(node: NodeFile, roster: Roster) -> None:
    """One owner an address, one node a pod."""
    owners: dict[Address, str] = dict.fromkeys(node.node.own, f"node {node.node.name}")
    owners |= dict.fromkeys(node.node.router_ip, "the router")
    owners |= {peer.ip: f"peer {peer.name}" for peer in node.peers}
    for member in roster.members.values():
        _check_pod(node, member)
        for address in member.addresses:
            other = owners.setdefault(address, member.name)
            if other != member.name:
                _refuse(member, f"{address} is {other}'s already, every address has one owner")


def _check_pod(node: NodeFile, member: Member) -> None:
    pod, endpoint, own = member.pod, member.endpoint, node.node.name
    if pod is None:
        return
    where = f"endpoint {member.name} in {node.place(endpoint.line)}" if endpoint else ""
    if endpoint is not None and pod.node_name not in (None, own):
        _refuse(member, f"it is on {pod.node_name}, and {where} is on {own}: remove one")
    if endpoint is not None and pod.ips and set(pod.ips) != set(endpoint.ip):
        _refuse(member, f"its addresses are not those of {where}: remove one of the two")
    if endpoint is None and pod.netns is not None and pod.node_name == own:
        if not pod.ips:
            _refuse(member, "fwd.io/netns without an address, add the annotation fwd.io/ip")
        for address in pod.ips:
            if not any(address in prefix for prefix in node.node.pod_cidr):
                ranges = ", ".join(map(str, node.node.pod_cidr)) or "not set"
                _refuse(member, f"{address} is outside node.pod_cidr ({ranges})")


def _check_rows(node: NodeFile, roster: Roster) -> None:
    """A raw row of a pod here says the identity the pod has."""
    known = (one for one in roster.members.values() if one.endpoint and one.labels)
    here = {ip: one for one in known for ip in one.addresses}
    for row in node.ipcache:
        one = row.prefix.prefixlen == row.prefix.max_prefixlen
        member = here.get(row.prefix.network_address) if one else None
        if member and row.identity and row.identity != member.identity:
            raise ManifestError(
                f"{node.place(row.line)}: ipcache: {row.prefix} is endpoint {member.name}, whose "
                f"identity is {member.identity}: write that, or no row"
            )


def _refuse(member: Member, text: str) -> None:
    """Raise an error about a pod of a manifest; one of the node file was checked already."""
    if member.pod is not None:
        origin = member.pod.origin
        raise ManifestError(f"{origin.file}:{origin.line}: {origin}: {text}")


def _endpoints(node: NodeFile, roster: Roster) -> Iterator[EndpointSection]:
    """Give the node file's endpoints with identity, labels and namespace of their pods."""
    for one in node.endpoints:
        member = roster.members[one.name]
        pod = member.pod
        labels = dict(one.labels)
        if pod is not None:
            labels = {key: text for key, text in pod.labels.items() if key not in _IMPLIED}
        netns = one.netns or (pod.netns if pod else None)
        update = {"identity": member.identity, "labels": labels, "netns": netns}
        yield one.model_copy(update=update)


def _new_endpoints(node: NodeFile, roster: Roster) -> Iterator[EndpointSection]:
    """Give the pods on this node that say all an endpoint needs."""
    taken = {one.id for one in node.endpoints}
    for member in sorted(roster.members.values(), key=lambda one: one.name):
        pod = member.pod
        if pod is None or member.endpoint or not member.is_on(node.node.name) or not pod.netns:
            continue
        digest = sha256(member.name.encode()).digest()[:8]
        number = int.from_bytes(digest, "big") % _ID_MAX + 1
        while number in taken:
            number = number % _ID_MAX + 1
        taken.add(number)
        yield EndpointSection.model_validate(
            {
                LINE_KEY: pod.origin.line,
                "\0file": pod.origin.file,
                "name": member.name,
                "id": number,
                "identity": member.identity,
                "labels": {k: text for k, text in pod.labels.items() if k not in _IMPLIED},
                "ip": [str(address) for address in pod.ips],
                "netns": pod.netns,
            }
        )


def _enforce(
    endpoints: Iterable[EndpointSection], rules: Iterable[Rule]
) -> Iterator[EndpointSection]:
    """Give the endpoints with default deny where a policy selects them."""
    selected = {(rule.endpoint, rule.direction) for rule in rules if rule.kind == "selects"}
    for one in endpoints:
        update = {
            "ingress": one.enforce.ingress or (one.name, "ingress") in selected,
            "egress": one.enforce.egress or (one.name, "egress") in selected,
        }
        yield one.model_copy(update={"enforce": one.enforce.model_copy(update=update)})


# ---- ipcache ----


def _own(node: NodeFile, roster: Roster) -> set[Address]:
    """Return the addresses of pods and nodes."""
    own: set[Address] = set(node.node.own)
    for peer in node.peers:
        own |= {peer.ip, *peer.router_ip}
    return own.union(*(member.addresses for member in roster.members.values()))


def _prefixes(policies: Iterable[Policy]) -> Iterator[Network]:
    for policy in policies:
        for rule in policy.rules:
            for peer in rule.peers or ():
                if peer.cidr is not None:
                    yield peer.cidr
                    yield from peer.excepts


def _written_rows(node: NodeFile, roster: Roster) -> Iterator[IpcacheSection]:
    """Give the raw rows, those of pods with the pods' identities."""
    for row in node.ipcache:
        if row.identity or row.pod is None:
            yield row
            continue
        member = roster.members.get(row.pod)
        # a pod that no manifest names yet is a part of the world, as any unknown address
        yield row.model_copy(update={"identity": member.identity if member else WORLD})


def _pod_rows(node: NodeFile, roster: Roster) -> Iterator[IpcacheSection]:
    """Give the rows of pods on other nodes, by the peer of that name."""
    written = {row.prefix for row in node.ipcache}
    peers = {peer.name: peer for peer in node.peers}
    for member in roster.members.values():
        pod = member.pod
        peer = peers.get(pod.node_name or "") if pod else None
        if pod is None or peer is None or member.endpoint is not None:
            continue
        for address in pod.ips:
            row = IpcacheSection.model_validate(
                {"prefix": str(address), "identity": member.identity,
                 "tunnel_endpoint": str(peer.ip)}
            )  # fmt: skip
            if row.prefix not in written:
                yield row


def _warnings(node: NodeFile, roster: Roster) -> Iterator[str]:
    """Say what of the pods has no effect, and what is missing for it."""
    for row in node.ipcache:
        if row.pod is not None and not row.identity and row.pod not in roster.members:
            yield f"{node.place(row.line)}: ipcache: no Pod {row.pod} is known, it counts as world"
    for member in roster.members.values():
        endpoint, pod = member.endpoint, member.pod
        if endpoint is not None and not member.labels:
            yield (
                f"{node.place(endpoint.line)}: endpoint {member.name}: nobody says who it is, it "
                "waits as init: write its identity or labels, or apply its Pod"
            )
        text = _pod_warning(node, member) if pod and not endpoint else None
        if pod and text:
            yield f"{pod.origin.file}:{pod.origin.line}: {pod.origin}: {text}"


def _pod_warning(node: NodeFile, member: Member) -> str | None:
    """Return why a pod without an endpoint here leads to nothing, None when it does not."""
    where = member.pod.node_name if member.pod else None
    if where == node.node.name:
        if member.pod and member.pod.netns:
            return None
        return (
            "not created, add an endpoint of this name to the node file, or the annotations "
            "fwd.io/ip and fwd.io/netns"
        )
    if where is not None and where not in {peer.name for peer in node.peers}:
        return f"node {where} is no peer of this node, it cannot be reached"
    if not member.addresses:
        return (
            "its address is not known, add the annotation fwd.io/ip, status.podIP, or an ipcache "
            "row with `pod:`"
        )
    if where is None and member.pod and member.pod.ips:
        return "nodeName is missing, so nobody knows where its address is"
    return None
