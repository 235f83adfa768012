"""What every manifest shares: metadata, label selectors, port ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwd.model.manifest import Origin
from fwd.model.policy import PortRange
from fwd.model.selector import Requirement, Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from fwd.manifest.reader import Field
    from fwd.model.selector import Operator

    _KeyOf: TypeAlias = Callable[[str], str]

__all__ = ["OBJECT_KEYS", "PORT_MAX", "Meta", "port_range", "read_meta", "read_selector"]

OBJECT_KEYS: Final = ("apiVersion", "kind", "metadata")
PORT_MAX: Final = 65535
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_OPERATORS: Final[tuple[Operator, ...]] = ("In", "NotIn", "Exists", "DoesNotExist")
_IGNORED = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
    "ownerReferences", "finalizers", "generateName", "deletionTimestamp",
    "deletionGracePeriodSeconds",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meta:
    """An object's metadata."""

    origin: Origin
    namespace: str
    """Empty for clusterwide objects."""
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    annotations_field: Field | None


def read_meta(document: Mapping[str, Field], top: Field, *, namespaced: bool = True) -> Meta:
    """Read ``metadata`` of a document; no namespace means the file's."""
    kind = document["kind"].text()
    if "metadata" not in document:
        top.fail("metadata: missing, add it with a name")
    field = document["metadata"]
    keys = ("name", "namespace", "labels", "annotations")
    data = field.mapping(keys, _IGNORED)
    if "name" not in data:
        field.fail("name: missing, add it")
    name = _name(data["name"])
    namespace = ""
    if namespaced:
        namespace = _name(data["namespace"]) if "namespace" in data else top.namespace
    elif "namespace" in data:
        data["namespace"].fail(f"a {kind} has no namespace, remove it")
    full = f"{namespace}/{name}" if namespace else name
    annotations = data.get("annotations")
    return Meta(
        origin=Origin(kind, full, top.file, top.line),
        namespace=namespace,
        name=name,
        labels=data["labels"].labels() if "labels" in data else {},
        annotations=annotations.labels() if annotations else {},
        annotations_field=annotations,
    )


def _name(field: Field) -> str:
    text = field.text()
    if not NAME.fullmatch(text):
        field.fail(f"{text!r} is not a name, use lower case letters, digits, . and -")
    return text


def read_selector(field: Field, key_of: _KeyOf = str) -> Selector:
    """Read a label selector; ``{}`` selects everybody.

    Args:
        field: with ``matchLabels`` and ``matchExpressions``.
        key_of: turns a key as written into the label's.
    """
    data = field.mapping(("matchLabels", "matchExpressions"))
    found = []
    if "matchLabels" in data:
        labels = data["matchLabels"]
        found += [
            Requirement(_key(labels, key, key_of), "In", (value,))
            for key, value in labels.labels().items()
        ]
    if "matchExpressions" in data:
        found += [_expression(item, key_of) for item in data["matchExpressions"].items()]
    return Selector(tuple(found))


def _expression(field: Field, key_of: _KeyOf) -> Requirement:
    data = field.mapping(("key", "operator", "values"))
    for key in ("key", "operator"):
        if key not in data:
            field.fail(f"{key}: missing, add it")
    operator = data["operator"].choice(*_OPERATORS)
    values = tuple(item.text() for item in data["values"].items()) if "values" in data else ()
    if operator in ("In", "NotIn") and not values:
        field.fail(f"values: {operator} needs at least one, add them")
    if operator in ("Exists", "DoesNotExist") and values:
        field.fail(f"values: {operator} takes none, remove them")
    return Requirement(_key(data["key"], data["key"].text(), key_of), operator, values)


def _key(field: Field, text: str, key_of: _KeyOf) -> str:
    try:
        return key_of(text)
    except ValueError as error:
        field.fail(str(error))


def port_range(first: int, end: Field | None) -> PortRange:
    """Return ``first`` to ``endPort``, which may be left out."""
    if end is None:
        return PortRange(first, first)
    last = end.number(1, PORT_MAX)
    if last < first:
        end.fail(f"{last} is less than port {first}, write {first} or more")
    return PortRange(first, last)
