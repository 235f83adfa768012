"""Identities from labels: who is known on this node, and under which number.

Pure. A label set's number follows from its canonical text (datapath reference 9.4), so that nodes
which know the same pods agree without asking each other; where two sets meet, the later one in
order takes the next free number. Numbers the node file writes win: an endpoint's ``identity``, and
the identity of a raw ipcache row that is a known pod's address.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from fwd.manifest.reader import ManifestError
from fwd.model.identity import INIT
from fwd.model.selector import (
    METADATA_NAME,
    NAMESPACE_LABEL,
    NAMESPACE_PREFIX,
    LabelIndex,
    canonical,
    identity_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwd.config.schema import EndpointSection, NodeFile
    from fwd.model.manifest import Manifests, Pod
    from fwd.model.rows import Address

__all__ = ["ALLOCATED_FIRST", "ALLOCATED_LAST", "Member", "Roster", "allocate", "make_roster"]

ALLOCATED_FIRST: Final = 256
ALLOCATED_LAST: Final = 65535
_COUNT = ALLOCATED_LAST - ALLOCATED_FIRST + 1


@dataclass(frozen=True, slots=True)
class Member:
    """A pod this node knows, here or elsewhere; ``endpoint`` None = the node file has none."""

    name: str
    labels: Mapping[str, str]
    """What selectors see: with the namespace's labels. Empty = nothing is known."""
    identity: int
    pod: Pod | None
    endpoint: EndpointSection | None
    addresses: tuple[Address, ...]

    def is_on(self, node: str) -> bool:
        """Tell whether the pod is on the node ``node``, ours."""
        return self.endpoint is not None or (self.pod is not None and self.pod.node_name == node)


@dataclass(frozen=True, slots=True)
class Roster:
    """All known pods and their identities."""

    members: Mapping[str, Member]
    labels: Mapping[int, Mapping[str, str]]
    """Identity to its labels."""
    index: LabelIndex[int]
    """Identities by what selectors see."""


def allocate(wanted: Iterable[str], taken: Iterable[int]) -> dict[str, int]:
    """Return canonical labels to a number of 256..65535 that is not ``taken``.

    Raises:
        ManifestError: there are more label sets than numbers.
    """
    used = set(taken)
    numbers: dict[str, int] = {}
    for text in sorted(set(wanted)):
        digest = sha256(text.encode()).digest()[:8]
        offset = int.from_bytes(digest, "big") % _COUNT
        tries = (ALLOCATED_FIRST + (offset + step) % _COUNT for step in range(_COUNT))
        number = next((one for one in tries if one not in used), None)
        if number is None:
            raise ManifestError(f"more than {_COUNT} label sets, use fewer distinct labels")
        used.add(number)
        numbers[text] = number
    return numbers


def make_roster(node: NodeFile, manifests: Manifests) -> Roster:
    """Return who is known.

    Raises:
        ManifestError: node file and manifests contradict each other.
    """
    pods = {pod.origin.name: pod for pod in manifests.pods}
    endpoints = {one.name: one for one in node.endpoints}
    names = dict.fromkeys((*endpoints, *pods))
    known = {name: _labels_of(node, endpoints.get(name), pods.get(name)) for name in names}
    numbers = _numbers(node, known, pods)
    members: dict[str, Member] = {}
    by_number: dict[int, dict[str, str]] = {}
    seen: dict[int, dict[str, str]] = {}
    for name, labels in known.items():
        endpoint = endpoints.get(name)
        identity = endpoint.identity if endpoint and endpoint.identity else INIT
        if identity == INIT and labels:
            identity = numbers[canonical(labels)]
        wide = _widen(labels, manifests)
        addresses = _addresses(node, endpoint, pods.get(name))
        members[name] = Member(name, wide, identity, pods.get(name), endpoint, addresses)
        if labels and by_number.setdefault(identity, labels) != labels and manifests.policies:
            raise ManifestError(
                f"{_place(node, members[name])}: {name} has identity {identity} as another pod "
                "with other labels, policies could not tell them apart: change one number"
            )
        seen.setdefault(identity, wide)
    return Roster(members, by_number, LabelIndex(seen.items()))


def _labels_of(node: NodeFile, endpoint: EndpointSection | None, pod: Pod | None) -> dict[str, str]:
    """Return the labels of a pod's identity, empty when there is nothing to make them of."""
    if pod is not None:
        labels = dict(pod.labels)
        if endpoint is not None and endpoint.labels and endpoint.labels.items() - labels.items():
            raise ManifestError(
                f"{node.place(endpoint.line)}: endpoint {endpoint.name}: other labels than "
                f"{pod.origin} in {pod.origin.file}:{pod.origin.line}, remove those here"
            )
        return labels
    if endpoint is None or not (endpoint.labels or endpoint.identity):
        return {}
    namespace, slash, _ = endpoint.name.partition("/")
    namespace = endpoint.labels.get(NAMESPACE_LABEL, namespace if slash else "default")
    return identity_labels(namespace, endpoint.labels)


def _numbers(
    node: NodeFile, known: Mapping[str, Mapping[str, str]], pods: Mapping[str, Pod]
) -> dict[str, int]:
    """Return canonical labels to number: as the node file writes, else allocated."""
    endpoints = {one.name: one for one in node.endpoints}
    texts = {name: canonical(labels) for name, labels in known.items() if labels}
    pinned: dict[str, int] = {}
    rows = {row.prefix.network_address: row.identity for row in node.ipcache
            if row.prefix.prefixlen == row.prefix.max_prefixlen and row.identity}  # fmt: skip
    named = {row.pod: row.identity for row in node.ipcache if row.pod and row.identity}
    written = {one.name: one.identity for one in node.endpoints if one.identity}
    for name, text in texts.items():
        if name in written:
            pinned.setdefault(text, written[name])
    for name, text in texts.items():
        if name in named:
            pinned.setdefault(text, named[name])
        for address in _addresses(node, endpoints.get(name), pods.get(name)):
            if address in rows:
                pinned.setdefault(text, rows[address])
    taken = {*written.values(), *(row.identity for row in node.ipcache)}
    taken |= {peer.identity for peer in node.peers if peer.identity}
    free = (text for text in texts.values() if text not in pinned)
    return allocate(free, taken) | pinned


def _addresses(
    node: NodeFile, endpoint: EndpointSection | None, pod: Pod | None
) -> tuple[Address, ...]:
    """Return a pod's addresses: the endpoint's, the manifest's, or of raw rows that name it."""
    if endpoint is not None:
        return endpoint.ip
    if pod is None or pod.ips:
        return pod.ips if pod else ()
    named = (row.prefix for row in node.ipcache if row.pod == pod.origin.name)
    return tuple(one.network_address for one in named if one.prefixlen == one.max_prefixlen)


def _widen(labels: Mapping[str, str], manifests: Manifests) -> dict[str, str]:
    """Return ``labels`` and those of the pod's namespace."""
    if not labels:
        return {}
    return dict(labels) | dict(_of_namespace(labels[NAMESPACE_LABEL], manifests))


def _of_namespace(name: str, manifests: Manifests) -> Iterator[tuple[str, str]]:
    space = manifests.namespaces.get(name)
    for key, value in (space.labels if space else {METADATA_NAME: name}).items():
        yield NAMESPACE_PREFIX + key, value


def _place(node: NodeFile, member: Member) -> str:
    if member.endpoint is not None:
        return node.place(member.endpoint.line)
    return f"{member.pod.origin.file}:{member.pod.origin.line}" if member.pod else str(node.path)
