"""What a node file is made of: itself, the files beside it, the environment; in that order.

``FILE.d/*.yaml`` in order of their names, then the variables of ``ENVIRONMENT``: later ones win,
mappings merge, lists and values replace. Lines of all pieces are counted through, as if they stood
in one file, so that a line number alone says where it is (``place``).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "ENVIRONMENT",
    "Piece",
    "Places",
    "count",
    "drop_ins",
    "format_place",
    "ignored",
    "variables",
    "where",
]

ENVIRONMENT: Final[Mapping[str, tuple[str, str]]] = {
    "FWD_NODE_NAME": ("node", "name"),
    "FWD_NODE_IP": ("node", "ip"),
    "FWD_NODE_MAC": ("node", "mac"),
    "FWD_NODE_POD_CIDR": ("node", "pod_cidr"),
    "FWD_NODE_ROUTER_IP": ("node", "router_ip"),
    "FWD_TUNNEL_PORT": ("tunnel", "port"),
    "FWD_TUNNEL_MTU": ("tunnel", "mtu"),
    "FWD_FEATURES_MASQUERADE": ("features", "masquerade"),
    "FWD_FEATURES_MSS_CLAMP": ("features", "mss_clamp"),
    "FWD_FEATURES_OFFLOAD": ("features", "offload"),
    "FWD_API_SOCKET": ("api", "socket"),
    "FWD_METRICS_LISTEN": ("metrics", "listen"),
}
"""Variable to key; values are YAML, a list is written ``[a, b]``."""

_PREFIX = "FWD_"
_OTHERS = frozenset({"FWD_SOCKET", "FWD_DOOR_SOCKET", "FWD_UNIT"})
"""Read elsewhere, and no keys of the node file."""
_TESTS = "FWD_TEST_"

Places = tuple[tuple[int, str], ...]
"""First line (counted through) and name of each piece, ascending; ``$NAME`` is a variable."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One file's text, or one variable's value."""

    name: str
    """Path, or ``$NAME``."""
    text: str
    key: tuple[str, str] | None = None
    """What a variable sets; None = a file."""


def drop_ins(path: Path) -> Iterator[Path]:
    """Give the files that are merged over a node file; there may be none."""
    directory = path.with_name(path.name + ".d")
    if directory.is_dir():
        yield from sorted(directory.glob("*.yaml"))


def variables(environ: Mapping[str, str]) -> Iterator[Piece]:
    """Give the variables that are set, and not empty."""
    for name, key in ENVIRONMENT.items():
        if value := environ.get(name):
            yield Piece(f"${name}", value, key)


def ignored(path: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Tell what looks like a piece of the node file and is none, a line each: most are typos."""
    directory = path.with_name(path.name + ".d")
    if directory.is_dir():
        for one in sorted(directory.iterdir()):
            if one.suffix != ".yaml" and not one.name.startswith("."):
                yield f"{one}: ignored, drop-ins are *.yaml: rename it, or move it away"
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name.startswith(_TESTS):
            continue
        if name not in ENVIRONMENT and name not in _OTHERS:
            near = get_close_matches(name, ENVIRONMENT, n=1, cutoff=0.8)
            advice = f"did you mean {near[0]}?" if near else "see ENVIRONMENT in man fwd.yaml"
            yield f"${name}: ignored, no key has this variable, {advice}"


def where(places: Places, line: int) -> tuple[str, int]:
    """Return the piece a line belongs to and the line's number there; 0 = it has no lines."""
    first, name = places[max(bisect_right([start for start, _ in places], line) - 1, 0)]
    return name, 0 if name.startswith("$") else line - first + 1


def format_place(places: Places, line: int) -> str:
    """Return ``file:line`` of a line counted through, or the variable's name."""
    name, number = where(places, line)
    return f"{name}:{number}" if number else name


def count(pieces: Sequence[Piece]) -> Places:
    """Number the pieces' lines through, from 1."""
    places, first = [], 1
    for piece in pieces:
        places.append((first, piece.name))
        first += piece.text.count("\n") + 1
    return tuple(places)
