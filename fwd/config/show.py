"""A node file as flat settings with its defaults: to be read, compared, asked for origins. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fwd.config.schema import NodeFile, Section

if TYPE_CHECKING:
    from fwd.config.check import KeyPath

__all__ = ["as_text", "differences", "origin", "redacted", "redacted_text", "settings"]

_DEFAULT = "default"
_WORDS = r"passw(?:or)?d|passphrase|secret|token|credential|(?:private|api)[-_.]?key"
_SECRET = re.compile(_WORDS, re.IGNORECASE)
_PAIR = re.compile(rf"([\w.:/-]*(?:{_WORDS})[\w.:/-]*=)[^\s\"'\\,;)\]}}]+", re.IGNORECASE)
"""``KEY=VALUE`` in a text, as labels of identities stand there."""
_REMOVED = "<removed>"
_ROW_NAMES = ("name", "prefix")
"""What tells a list's rows apart, where they have it."""


def settings(node: NodeFile) -> dict[str, Any]:
    """Return key to value of everything ``node`` says or defaults to, as JSON takes it.

    Rows of lists are called by their name or prefix (``endpoints[default/web].ip``), and only their
    keys that differ from the default are in it.
    """
    return {label: value for label, _, value in _walk(node)}


def origin(node: NodeFile) -> dict[str, str]:
    """Return key to ``file:line``, ``$VARIABLE`` or ``default``, for the keys of ``settings``."""
    return {label: _origin(node, key) for label, key, _ in _walk(node)}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Give ``- key: value`` and ``+ key: value`` lines from one node's settings to the other's."""
    for key in [*old, *(one for one in new if one not in old)]:
        if key in old and key in new and old[key] == new[key]:
            continue
        for sign, one in (("-", old), ("+", new)):
            if key in one:
                yield f"{sign} {key}: {as_text(one[key])}"


def as_text(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a setting's value as a node file has it, or ``-`` for none."""
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {as_text(one)}' for key, one in value.items())}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)


def redacted(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return settings or rows of tables without the values of keys that look like secrets.

    Keys of mappings at any depth, as labels are, and of texts ``KEY=VALUE``; of a setting's name
    the key behind the row's (``endpoints[NAME].KEY``). ``value`` itself is left as it is.
    """
    if isinstance(value, Mapping):
        return {
            key: _REMOVED if _SECRET.search(str(key).rpartition("]")[2]) else redacted(one)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [redacted(one) for one in value]
    if not isinstance(value, str):
        return value
    key, _, rest = value.partition("=")
    if rest and _SECRET.search(key) and " " not in key:
        return f"{key}={_REMOVED}"  # whatever is in it
    return redacted_text(value)


def redacted_text(text: str) -> str:
    """Return a text without the values of ``KEY=VALUE`` whose keys look like secrets."""
    return _PAIR.sub(rf"\g<1>{_REMOVED}", text)


def _walk(
    section: Section, label: str = "", key: KeyPath = (), *, row: bool = False
) -> Iterator[tuple[str, KeyPath, Any]]:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if info.alias is not None or (row and value == info.get_default(call_default_factory=True)):
            continue
        here, path = (f"{label}.{name}".removeprefix("."), (*key, name))
        if isinstance(value, Section):
            yield from _walk(value, here, path, row=row)
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for index, one in enumerate(value):
                yield from _walk(one, f"{here}[{_row_name(one, index)}]", (*path, index), row=True)
        else:
            yield here, path, _plain(value)


def _row_name(section: Section, index: int) -> str:
    names = (getattr(section, name, None) for name in _ROW_NAMES)
    return str(next((name for name in names if name is not None), index))


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return value.hex(":")
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return str(value)


def _origin(node: NodeFile, key: KeyPath) -> str:
    line = node.lines.get(key)
    return _DEFAULT if line is None else node.place(line)
