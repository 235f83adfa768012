"""YAML text to nodes that know where they stand; libyaml reads it where it is installed.

libyaml is six times as fast as ruamel's own parser and tells less: what it refuses is read again by
the latter, whose errors say more, and which takes a few things (an anchor written twice) that
libyaml does not. Both give the same events; nodes are made of them here, without recursion, so that
no nesting exhausts a stack. Reads no file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingStartEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.resolver import VersionedResolver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["DepthError", "List", "Map", "Node", "Scalar", "compose"]

MAX_DEPTH = 100
"""Levels of a document; Kubernetes' own objects have a dozen."""
_VERSION = (1, 2)


class DepthError(Exception):
    """A document has more than ``MAX_DEPTH`` levels; ``line`` (from 1) is the first one's."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


@dataclass(slots=True)
class Scalar:
    """One value without children."""

    tag: str
    line: int
    """From 1."""
    start: int
    """Characters before it in the text."""
    end: int
    value: str


@dataclass(slots=True)
class List:
    """A sequence."""

    tag: str
    line: int
    start: int
    end: int
    value: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Map:
    """A mapping as pairs, in order; the same key may stand twice."""

    tag: str
    line: int
    start: int
    end: int
    value: list[tuple[Node, Node]] = field(default_factory=list)
    key: Node | None = None
    """The one that still waits for its value."""


Node: TypeAlias = "Scalar | List | Map"


def compose(text: str) -> Iterator[Node]:
    """Give the root of every document.

    Raises:
        YAMLError: not YAML.
        DepthError: nested too deeply.
    """
    given = 0
    try:
        for root in _Composer().documents(YAML(typ="safe", pure=_odd(text)).parse(text)):
            yield root
            given += 1
    except YAMLError:
        yield from islice(_Composer().documents(YAML(pure=True).parse(text)), given, None)


def _odd(text: str) -> bool:
    """Tell whether a text has line ends of YAML 1.1, which only libyaml still counts as such."""
    return any(end in text for end in "\x85\u2028\u2029")


class _Composer:
    """Puts the events of one text together."""

    def __init__(self) -> None:
        self._open: list[List | Map] = []
        self._anchors: dict[str, Node] = {}
        self._version = _VERSION
        self._root: Node | None = None

    def documents(self, events: Iterable[Any]) -> Iterator[Node]:
        """Give each document's root once it is complete."""
        for event in events:
            if isinstance(event, ScalarEvent):
                self._scalar(event)
            elif isinstance(event, CollectionStartEvent):
                self._begin(event)
            elif isinstance(event, CollectionEndEvent):
                self._open.pop().end = event.end_mark.index
            elif isinstance(event, AliasEvent):
                self._alias(event)
            elif isinstance(event, DocumentStartEvent):
                self._anchors = {}
                self._version = tuple(event.version or _VERSION)
            elif isinstance(event, DocumentEndEvent) and self._root is not None:
                yield self._root
                self._root = None

    def _scalar(self, event: Any) -> None:  # noqa: ANN401 - ruamel's
        tag = event.tag
        if tag is None or tag == "!":
            tag = _scalar_tag(event.value, *event.implicit, self._version)
        mark = event.start_mark
        node = Scalar(tag, mark.line + 1, mark.index, event.end_mark.index, event.value)
        self._place(node, event.anchor)

    def _begin(self, event: Any) -> None:  # noqa: ANN401
        mark = event.start_mark
        if len(self._open) >= MAX_DEPTH:
            raise DepthError(mark.line + 1)
        kind, default = (Map, _MAP) if isinstance(event, MappingStartEvent) else (List, _LIST)
        tag = default if event.tag in {None, "!"} else event.tag
        node = kind(tag, mark.line + 1, mark.index, mark.index)
        self._place(node, event.anchor)
        self._open.append(node)

    def _alias(self, event: Any) -> None:  # noqa: ANN401
        node = self._anchors.get(event.anchor)
        if node is None:
            raise MarkedYAMLError(
                problem=f"found undefined alias {event.anchor!r}", problem_mark=event.start_mark
            )
        self._place(node, None)

    def _place(self, node: Node, anchor: str | None) -> None:
        """Give a node to the collection that is open."""
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent, List):
            parent.value.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            parent.value.append((parent.key, node))
            parent.key = None


@lru_cache(maxsize=1 << 14)
def _scalar_tag(value: str, plain: bool, quoted: bool, version: tuple[int, int]) -> str:
    """Tell what a scalar without a tag is; words like ``true`` come again and again."""
    return str(VersionedResolver(version).resolve(ScalarNode, value, (plain, quoted)))


_MAP = str(VersionedResolver(_VERSION).resolve(MappingNode, None, (True, False)))
_LIST = str(VersionedResolver(_VERSION).resolve(SequenceNode, None, (True, False)))
