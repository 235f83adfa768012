"""Node file to ``NodeFile``: YAML 1.2 with line numbers, schema, checks, warnings.

Every error is one line ``file:line: key.path: what is wrong, what to do``; of several the first in
the file is told. Reads the file it is given, those of its drop-in directory, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fwd.config.check import check, unused
from fwd.config.pieces import Piece, Places, count, drop_ins, format_place, ignored, variables
from fwd.config.schema import LINE_KEY, NodeFile

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from fwd.config.check import KeyPath

__all__ = ["ConfigError", "load_node_file", "parse_node_text"]


class ConfigError(Exception):
    """The node file cannot be used; the text is ``file:line: key: what, what to do``."""


def load_node_file(path: Path, environ: Mapping[str, str] = MappingProxyType({})) -> NodeFile:
    """Read and check a node file, with its drop-ins and the environment over it.

    Args:
        path: of the node file; ``PATH.d/*.yaml`` are its drop-ins.
        environ: where variables are looked for (``ENVIRONMENT`` of pieces.py).

    Raises:
        ConfigError: unreadable, not YAML, or not a node file; nothing was changed.
    """
    pieces = [Piece(str(one), _text(one)) for one in (path, *drop_ins(path))]
    node = _parse([*pieces, *variables(environ)], path)
    return node.model_copy(update={"warnings": (*node.warnings, *ignored(path, environ))})


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path}: cannot read the node file: {error.strerror}, check the path"
        raise ConfigError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 at byte {error.start}, save the file as UTF-8 text"
        raise ConfigError(msg) from error


def parse_node_text(text: str, path: Path) -> NodeFile:
    """Read and check a node file that is at hand as text; ``path`` names it in errors.

    Raises:
        ConfigError: not YAML, or not a node file.
    """
    return _parse([Piece(str(path), text)], path)


def _parse(pieces: Sequence[Piece], path: Path) -> NodeFile:
    document = _Document(count(pieces))
    for index, piece in enumerate(pieces):
        document.add(index, piece)
    origin = {"\0path": path, "\0places": document.places, "\0lines": document.lines}
    try:
        node = NodeFile.model_validate(document.data | origin)
    except ValidationError as error:
        found = [_told(detail) for detail in error.errors(include_url=False)]
        raise document.error(found) from None
    problems = check(node)
    if problems:
        raise document.error(problems)
    warnings = tuple(document.line(key, text) for key, text in unused(node))
    return node.model_copy(update={"warnings": warnings})


class _Document:
    """YAML documents merged into plain objects, and the line of every key in them."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.lines: dict[KeyPath, int] = {(): 1}
        self.data: dict[str, Any] = {}
        self._first = 1

    def add(self, index: int, piece: Piece) -> None:
        """Merge a piece over what is there; every mapping has its line under ``LINE_KEY``.

        Raises:
            ConfigError: it is not YAML, or no mapping.
        """
        self._first = self.places[index][0]
        root = self._load(piece)
        if piece.key is not None:
            section, name = piece.key
            self.lines[section,] = self.lines.get((section,), self._first)
            self.lines[section, name] = self._first
            value = self._plain(root, (section, name))
            over = {section: {name: value, LINE_KEY: self._first}}
        elif index and root is None:
            return  # a drop-in of comments only
        elif not isinstance(root, CommentedMap):
            msg = f"{piece.name}:1: a node file is a mapping, start it with 'node:'"
            raise ConfigError(msg)
        else:
            over = self._plain(root, ())
        self._merge(self.data, over, ())

    def _load(self, piece: Piece) -> object:
        try:
            return YAML(typ="rt", pure=True).load(piece.text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = self._first + (mark.line if mark else 0)
            what = re.sub(r"\s+", " ", str(error.problem or error.context or "syntax error"))
            msg = f"{self.place(line)}: not YAML: {what}, correct this line"
            raise ConfigError(msg) from None
        except YAMLError as error:
            what = re.sub(r"\s+", " ", str(error))
            msg = f"{self.place(self._first)}: not YAML: {what}, correct the file"
            raise ConfigError(msg) from None

    def _merge(self, data: dict[str, Any], over: dict[str, Any], path: KeyPath) -> None:
        for key, value in over.items():
            before = data.get(key)
            if isinstance(before, dict) and isinstance(value, dict):
                self._merge(before, value, (*path, key))
            elif key != LINE_KEY or before is None:
                data[key] = value
                self._forget((*path, key))

    def _forget(self, path: KeyPath) -> None:
        """Forget the lines of what earlier pieces had below a key that was replaced."""
        for key, line in tuple(self.lines.items()):
            if key[: len(path)] == path and line < self._first:
                del self.lines[key]

    def place(self, line: int) -> str:
        """Return ``file:line`` of a line counted through."""
        return format_place(self.places, line)

    def _plain(self, value: object, path: KeyPath) -> Any:  # noqa: ANN401 - any YAML value
        if not isinstance(value, CommentedMap | CommentedSeq):
            return _scalar(value)
        keys = value.keys() if isinstance(value, CommentedMap) else range(len(value))
        plain = {key: self._child(value, key, (*path, key)) for key in keys}
        if isinstance(value, CommentedMap):
            return plain | {LINE_KEY: self.lines[path]}
        return list(plain.values())

    def _child(self, parent: Any, key: Any, path: KeyPath) -> Any:  # noqa: ANN401 - any YAML value
        where = (parent.lc.data or {}).get(key)
        self.lines[path] = where[0] + self._first if where else self.lines[path[:-1]]
        return self._plain(parent[key], path)

    def line_of(self, key: KeyPath) -> int:
        """Return the line of ``key``, or of the nearest key above it."""
        while key not in self.lines:
            key = key[:-1]
        return self.lines[key]

    def line(self, key: KeyPath, text: str) -> str:
        """Return ``file:line: key.path: text``."""
        return f"{self.place(self.line_of(key))}: {_dotted(key)}: {text}"

    def error(self, problems: Sequence[tuple[KeyPath, str]]) -> ConfigError:
        """Return the error that stands first in the file."""
        key, text = min(problems, key=lambda problem: self.line_of(problem[0]))
        return ConfigError(self.line(key, text))


def _scalar(value: object) -> object:
    """Turn ruamel's number and text types, which remember their spelling, into plain ones."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if type(value).__name__ == "ScalarBoolean":  # an int, caught above unless ruamel changes
        return bool(value)
    return value


def _dotted(key: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".") or "(top level)"


def _told(detail: ErrorDetails) -> tuple[KeyPath, str]:
    """Turn one of pydantic's errors into (key path, text)."""
    kind, value = detail["type"], detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    key = tuple(part for part in detail["loc"] if part not in ("int", "literal", "[key]"))
    if kind == "unknown_key":
        return (*key, context["key"]), detail["msg"]
    if kind == "missing":
        return key, "missing, add it"
    if kind == "value_error":
        return key, str(context["error"])
    if kind in _LIMITS:
        return key, f"{value} is out of range, write {_LIMITS[kind].format(**context)}"
    if kind == "literal_error":
        near = get_close_matches(str(value), re.findall(r"'(\w+)'", context["expected"]), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"write {context['expected']}"
        return key, f"{_shown(value)} is not known here, {hint}"
    return key, f"{_shown(value)} has the wrong type, write {_TYPES.get(kind, detail['msg'])}"


_LIMITS = {
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
}

_TYPES = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "text (put it in quotes)",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "tuple_type": "a list (- item, or [item])",
}


def _shown(value: object) -> str:
    """Return what the user wrote, short enough for one line."""
    if value is None:
        return "an empty value"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
