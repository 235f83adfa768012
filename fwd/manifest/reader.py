"""Multi-document YAML as fields that know their file, line and key: what parsers of manifests walk.

A field reads its children only when asked, so what a parser ignores costs nothing, and anchors
cannot blow a file up. An empty value counts as absent, as in Kubernetes. Reads no file.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fwd.config.load import ConfigError
from fwd.manifest.nodes import DepthError, List, Map, Scalar, compose
from fwd.model.address import parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fwd.manifest.nodes import Node
    from fwd.model.rows import Address, Network

__all__ = ["Field", "ManifestError", "read_documents"]

_TAG = "tag:yaml.org,2002:"
_Choice = TypeVar("_Choice", bound=str)


class ManifestError(ConfigError):
    """A manifest cannot be used; the text is ``file:line: key: what, what to do``."""


def read_documents(text: str, file: str, namespace: str = "default") -> Iterator[Field]:
    """Give the documents of a file that are not empty; objects without namespace are in ours.

    Raises:
        ManifestError: not YAML.
    """
    try:
        for node in compose(text):
            if node.tag != f"{_TAG}null":
                yield Field(node, text, file, namespace)
    except DepthError as error:
        raise ManifestError(f"{file}:{error.line}: nested too deeply, correct the file") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = re.sub(r"\s+", " ", str(error.problem or error.context or "syntax error"))
        msg = f"{file}:{line}: not YAML: {what}, correct this line"
        raise ManifestError(msg) from None
    except YAMLError as error:
        what = re.sub(r"\s+", " ", str(error))
        raise ManifestError(f"{file}:1: not YAML: {what}, correct the file") from None


class Field:
    """One value of a document."""

    __slots__ = ("_node", "_text", "file", "key", "namespace")

    def __init__(self, node: Node, text: str, file: str, namespace: str, key: str = "") -> None:
        self._node = node
        self._text = text
        self.file = file
        self.namespace = namespace
        """Of objects that name none."""
        self.key = key
        """Dotted path from the top of the document."""

    @property
    def line(self) -> int:
        """Line in the file, from 1."""
        return self._node.line

    @property
    def is_number(self) -> bool:
        """Tell whether it is written as a whole number."""
        return isinstance(self._node, Scalar) and self._node.tag == f"{_TAG}int"

    def fail(self, text: str) -> NoReturn:
        """Raise a ManifestError about this field: "what is wrong, what to do"."""
        where = f"{self.key}: " if self.key else ""
        raise ManifestError(f"{self.file}:{self.line}: {where}{text}")

    def mapping(
        self,
        known: Collection[str],
        ignored: Collection[str] = (),
        refused: Mapping[str, str] | None = None,
    ) -> dict[str, Field]:
        """Return the fields of a mapping.

        Args:
            known: keys the caller reads.
            ignored: keys that say nothing about packets; they may be there.
            refused: key to what it would need, for keys that exist and are not implemented.
        """
        found = {}
        for key, field in self._pairs():
            if refused and key in refused:
                field.fail(f"{refused[key]}: not implemented, remove it")
            if key in known:
                found[key] = field
            elif key not in ignored:
                near = get_close_matches(key, [*known, *ignored], n=1, cutoff=0.5)
                advice = f"did you mean '{near[0]}'?" if near else f"here: {', '.join(known)}"
                field.fail(f"unknown field, {advice}")
        return {key: field for key, field in found.items() if not field.is_null}

    def peek(self, keys: Collection[str]) -> dict[str, Field]:
        """Return some fields of a mapping, whatever else it has."""
        found = dict(self._pairs())
        return {key: found[key] for key in keys if key in found and not found[key].is_null}

    def source(self) -> str:
        """Return the text of this value as the file has it."""
        return self._text[self._node.start : self._node.end]

    def _pairs(self) -> Iterator[tuple[str, Field]]:
        if not isinstance(self._node, Map):
            self.fail(f"{self._shown} has the wrong type, write a mapping (key: value)")
        seen: dict[str, int] = {}
        for key_node, value in self._node.value:
            key = key_node.value if isinstance(key_node, Scalar) else "?"
            path = f"{self.key}.{key}" if self.key else key
            field = Field(value, self._text, self.file, self.namespace, path)
            line = key_node.line
            if key in seen:
                msg = f"{self.file}:{line}: {field.key}: stands on line {seen[key]} already"
                raise ManifestError(f"{msg}, write a key once")
            seen[key] = line
            yield key, field

    @property
    def is_null(self) -> bool:
        """Tell whether it is empty."""
        return self._node.tag == f"{_TAG}null"

    @property
    def _shown(self) -> str:
        if isinstance(self._node, Scalar):
            return "an empty value" if self.is_null else repr(self._node.value)[:60]
        return "a mapping" if isinstance(self._node, Map) else "a list"

    def items(self) -> tuple[Field, ...]:
        """Return the fields of a list."""
        if not isinstance(self._node, List):
            self.fail(f"{self._shown} has the wrong type, write a list (- item, or [item])")
        return tuple(
            Field(node, self._text, self.file, self.namespace, f"{self.key}[{index}]")
            for index, node in enumerate(self._node.value)
        )

    def text(self) -> str:
        """Return a text; a number or a boolean without quotes is none."""
        if not isinstance(self._node, Scalar) or self._node.tag not in (
            f"{_TAG}str", f"{_TAG}timestamp",
        ):  # fmt: skip
            self.fail(f"{self._shown} has the wrong type, write text (put it in quotes)")
        return self._node.value

    def choice(self, *choices: _Choice) -> _Choice:
        """Return one of ``choices``."""
        text = self.text()
        found = next((one for one in choices if one == text), None)
        if found is None:
            near = get_close_matches(text, choices, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"write {' or '.join(choices)}"
            self.fail(f"{text!r} is not known here, {advice}")
        return found

    def boolean(self) -> bool:
        """Return true or false."""
        if not isinstance(self._node, Scalar) or self._node.tag != f"{_TAG}bool":
            self.fail(f"{self._shown} has the wrong type, write true or false")
        return self._node.value.lower() == "true"

    def number(self, first: int, last: int) -> int:
        """Return a whole number from ``first`` to ``last``."""
        if not self.is_number:
            self.fail(f"{self._shown} has the wrong type, write a whole number")
        return self._in_range(str(self._node.value), first, last)

    def number_text(self, first: int, last: int) -> int:
        """Return a whole number that may stand in quotes, as ports of Cilium do."""
        if not self.is_number and not re.fullmatch(r"\d+", self.text()):
            self.fail(f"{self._shown} is a name: not implemented here, write the number")
        return self._in_range(str(self._node.value), first, last)

    def _in_range(self, text: str, first: int, last: int) -> int:
        plain = text.replace("_", "")
        value = int(plain, 10 if plain.lstrip("+-").isdigit() else 0)
        if not first <= value <= last:
            self.fail(f"{value} is out of range, write {first} to {last}")
        return value

    def labels(self) -> dict[str, str]:
        """Return a flat mapping of text to text."""
        return {key: field.text() for key, field in self._pairs()}

    def address(self) -> Address:
        """Return an IP address."""
        try:
            return parse_address(self.text())
        except ValueError as error:
            self.fail(str(error))

    def network(self) -> Network:
        """Return a prefix."""
        try:
            return parse_network(self.text())
        except ValueError as error:
            self.fail(str(error))

    def addresses(self) -> tuple[Address, ...]:
        """Return a list of different addresses."""
        found: dict[Address, None] = {}
        for item in self.items():
            address = item.address()
            if address in found:
                item.fail(f"{address} is in the list already, write it once")
            found[address] = None
        return tuple(found)
