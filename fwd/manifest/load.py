"""Manifest files to values: which reader takes a document, and names that collide.

``List`` documents, as ``kubectl get -o yaml`` prints them, are read item by item.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from fwd.manifest.cilium import read_cilium_policies
from fwd.manifest.network_policy import read_network_policy
from fwd.manifest.pod import read_namespace, read_pod
from fwd.manifest.reader import ManifestError, read_documents
from fwd.manifest.service import read_service, read_slice
from fwd.model.manifest import Manifests, Namespace, Pod, Policy, Service, Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fwd.manifest.reader import Field
    from fwd.model.manifest import Origin

__all__ = ["ObjectKey", "Parsed", "merge", "parse_file"]

MAX_DEPTH = 8
"""Lists in lists."""
ObjectKey = tuple[str, str]
"""Kind and full name."""
Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """One object of a file: its values (a policy with ``specs`` has several)."""

    origin: Origin
    values: Values = field(compare=False)
    source: str
    """Its text: the same text says the same."""

    @property
    def key(self) -> ObjectKey:
        """What no other object may have."""
        return self.origin.kind, self.origin.name


def _one(reader: Callable[[Field], Any]) -> Callable[[Field], Iterable[Any]]:
    return lambda top: (reader(top),)


_READERS: Mapping[tuple[str, str], Callable[[Field], Iterable[Any]]] = {
    ("v1", "Pod"): _one(read_pod),
    ("v1", "Namespace"): _one(read_namespace),
    ("v1", "Service"): _one(read_service),
    ("discovery.k8s.io/v1", "EndpointSlice"): _one(read_slice),
    ("networking.k8s.io/v1", "NetworkPolicy"): _one(read_network_policy),
    ("cilium.io/v2", "CiliumNetworkPolicy"): partial(read_cilium_policies, clusterwide=False),
    ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"): partial(
        read_cilium_policies, clusterwide=True
    ),
}


def parse_file(text: str, file: str, namespace: str = "default") -> list[Parsed]:
    """Read all objects of one file.

    Args:
        text: of the file.
        file: its name, for errors and rules.
        namespace: of objects that name none.

    Raises:
        ManifestError: not YAML, not an object fwd knows, or one that is wrong.
    """
    documents = read_documents(text, file, namespace)
    return [_parse(top) for document in documents for top in _flatten(document)]


def _flatten(document: Field, depth: int = 0) -> Iterator[Field]:
    data = document.peek(("apiVersion", "kind", "items"))
    for key in ("apiVersion", "kind"):
        if key not in data:
            document.fail(f"{key}: missing, a Kubernetes object has apiVersion and kind")
    if (data["apiVersion"].text(), data["kind"].text()) != ("v1", "List"):
        yield document
        return
    for item in data["items"].items() if "items" in data else ():
        if depth == MAX_DEPTH:  # an alias makes a list of itself
            item.fail("nested too deeply, write the objects one after the other")
        yield from _flatten(item, depth + 1)


def _parse(top: Field) -> Parsed:
    data = top.peek(("apiVersion", "kind"))
    version, kind = data["apiVersion"].text(), data["kind"].text()
    reader = _READERS.get((version, kind))
    if reader is None:
        right = [one for one, name in _READERS if name == kind]
        if right:
            data["apiVersion"].fail(f"'{version}' is not implemented for {kind}, use {right[0]}")
        near = get_close_matches(kind, [name for _, name in _READERS], n=1)
        known = ", ".join(name for _, name in _READERS)
        advice = f"did you mean '{near[0]}'?" if near else f"implemented are {known}"
        data["kind"].fail(f"'{kind}' is not implemented, {advice}")
    values = tuple(reader(top))
    return Parsed(values[0].origin, values, top.source())


def merge(objects: Iterable[Parsed]) -> Manifests:
    """Return what all objects say together.

    Raises:
        ManifestError: two objects have the same kind and name.
    """
    seen: dict[ObjectKey, Origin] = {}
    by_kind: dict[type, list[Any]] = defaultdict(list)
    for one in objects:
        other = seen.setdefault(one.key, one.origin)
        if other is not one.origin:
            raise ManifestError(
                f"{one.origin.file}:{one.origin.line}: {one.origin} is defined in "
                f"{other.file}:{other.line} already, remove or rename one"
            )
        for value in one.values:
            by_kind[type(value)].append(value)
    return Manifests(
        namespaces={one.origin.name: one for one in by_kind[Namespace]},
        pods=tuple(by_kind[Pod]),
        services=tuple(by_kind[Service]),
        slices=tuple(by_kind[Slice]),
        policies=tuple(by_kind[Policy]),
    )
