"""Where a node's wishes come from: its node file, the manifests that names, and applied ones.

A ``NodeSource`` is a value: what ``applied`` and ``deleted`` give is another one, so a daemon goes
over to it only when everything else has gone well. Reads files, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from fwd.config.load import load_node_file
from fwd.control.manifests import expand
from fwd.manifest.load import merge, parse_file
from fwd.manifest.reader import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwd.config.schema import NodeFile
    from fwd.manifest.load import ObjectKey, Parsed

__all__ = ["ManifestFile", "NodeSource", "ObjectChange", "read_node", "sources"]

ObjectChange: TypeAlias = dict[str, str]
"""``kind``, ``name`` and ``action``: created, configured, unchanged, deleted."""
_SUFFIXES = (".yaml", ".yml", ".json")


class ManifestFile(NamedTuple):
    """One file of an order, as the client has read it."""

    name: str
    text: str
    namespace: str = "default"
    """Of objects that name none."""


@dataclass(frozen=True, slots=True)
class NodeSource:
    """Everything that makes up one node."""

    path: Path
    base: NodeFile
    """The node file alone."""
    named: tuple[Parsed, ...] = ()
    """Objects of the files its ``manifests`` names."""
    extra: tuple[Parsed, ...] = ()
    """Objects that were applied since."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Where variables are looked for; empty = they do not count."""

    @classmethod
    def read(
        cls,
        path: Path,
        extra: tuple[Parsed, ...] = (),
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> NodeSource:
        """Read the node file, its drop-ins, the environment, and the manifests they name.

        Raises:
            ConfigError: one of them is wrong.
        """
        base = load_node_file(path, environ)
        named: list[Parsed] = []
        for name in base.manifests:
            for file in _files(path, name):
                named += parse_file(_text(path, file), str(file))
        return cls(path, base, tuple(named), extra, environ)

    def reread(self) -> NodeSource:
        """Read the files again; what was applied stays."""
        return NodeSource.read(self.path, self.extra, self.environ)

    def node(self) -> NodeFile:
        """Return the node file with everything in it.

        Raises:
            ManifestError: the parts contradict each other.
        """
        return expand(self.base, merge((*self.named, *self.extra)))

    def applied(self, files: Iterable[ManifestFile]) -> tuple[NodeSource, list[ObjectChange]]:
        """Return the source with the files' objects in it, and what became of each.

        Raises:
            ManifestError: a file is wrong, or an object belongs to the node file.
        """
        new = _parse(files)
        merge(new)  # no name twice
        old = {one.key: one for one in self.extra}
        _refuse_named(new, self.named)
        changes = []
        for one in new:
            before = old.get(one.key)
            same = before is not None and before.source == one.source
            action = "created" if before is None else "unchanged" if same else "configured"
            changes.append(_change(one, action))
        kept = old | {one.key: one for one in new}
        return replace(self, extra=tuple(kept.values())), changes

    def deleted(self, files: Iterable[ManifestFile]) -> tuple[NodeSource, list[ObjectChange]]:
        """Return the source without the files' objects, and what was deleted.

        Raises:
            ManifestError: a file is wrong, or one of its objects was never applied.
        """
        gone = _parse(files)
        _refuse_named(gone, self.named)
        kept = {one.key: one for one in self.extra}
        for one in gone:
            if kept.pop(one.key, None) is None:
                where = f"{one.origin.file}:{one.origin.line}"
                raise ManifestError(f"{where}: {one.origin} was not applied, remove it here")
        changes = [_change(one, "deleted") for one in gone]
        return replace(self, extra=tuple(kept.values())), changes


def read_node(path: Path, environ: Mapping[str, str] = MappingProxyType({})) -> NodeFile:
    """Return a node file with the manifests it names in it, and ``environ`` over it.

    Raises:
        ConfigError: one of the files is wrong, or they contradict each other.
    """
    return NodeSource.read(path, environ=environ).node()


def sources(node: NodeFile) -> Iterator[Path]:
    """Give the files a node file was read from: itself, its drop-ins, the manifests it names."""
    for _, name in node.places:
        if not name.startswith("$"):
            yield Path(name)
    for name in node.manifests:
        yield from _files(node.path, name)


def _parse(files: Iterable[ManifestFile]) -> list[Parsed]:
    return [one for file in files for one in parse_file(file.text, file.name, file.namespace)]


def _refuse_named(objects: Iterable[Parsed], named: Iterable[Parsed]) -> None:
    owned: dict[ObjectKey, Parsed] = {one.key: one for one in named}
    for one in objects:
        other = owned.get(one.key)
        if other is not None:
            raise ManifestError(
                f"{one.origin.file}:{one.origin.line}: {one.origin} belongs to the node file "
                f"({other.origin.file}:{other.origin.line}), change it there and reload"
            )


def _change(one: Parsed, action: str) -> ObjectChange:
    return {"kind": one.origin.kind, "name": one.origin.name, "action": action}


def _files(node_file: Path, name: str) -> Iterator[Path]:
    """Give the files of one entry of ``manifests``: itself, or those in the directory."""
    path = node_file.parent / name
    if not path.is_dir():
        yield path
        return
    yield from sorted(one for one in path.iterdir() if one.suffix in _SUFFIXES)


def _text(node_file: Path, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{node_file}: manifests: cannot read {path}: {error.strerror}, check the path"
        raise ManifestError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path}: not UTF-8 at byte {error.start}, save the file as UTF-8 text"
        raise ManifestError(msg) from error
