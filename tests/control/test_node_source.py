"""Node file, named manifests and applied ones together, and what an order changes."""

from __future__ import annotations

import pytest

from fwd.config.load import ConfigError
from fwd.control.node_source import ManifestFile, NodeSource, read_node
from fwd.manifest.reader import ManifestError
from tests.control.manifests import NODE, pod


@pytest.fixture
def path(tmp_path):
    """A node file that names a directory and a file."""
    directory = tmp_path / "pods"
    directory.mkdir()
    (directory / "b.yaml").write_text(pod("b"))
    (directory / "a.yml").write_text(pod("a"))
    (directory / "notes.txt").write_text("no manifest")
    (tmp_path / "one.yaml").write_text(pod("c"))
    path = tmp_path / "n1.yaml"
    path.write_text(NODE + "manifests: [pods, one.yaml]\n")
    return path


def names(source):
    """The pods of a source."""
    return sorted(one.origin.name for one in (*source.named, *source.extra))


def test_files_and_directories_are_read(path):
    """Paths are relative to the node file; other files in a directory are not ours."""
    source = NodeSource.read(path)
    assert names(source) == ["default/a", "default/b", "default/c"]
    assert read_node(path) == source.node()


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("one.yaml", None, r"n1.yaml: manifests: cannot read .*one.yaml: No such file"),
        ("one.yaml", b"\xff", r"one.yaml: not UTF-8 at byte 0"),
        ("one.yaml", b"a: 1", r"one.yaml:1: apiVersion: missing"),
        (
            "one.yaml",
            pod("a").encode(),
            r"one.yaml:1: Pod default/a is defined in .*a.yml:1 already",
        ),
    ],
)
def test_bad_files_are_errors(path, name, text, error):
    """Each names its file."""
    file = path.parent / name
    file.unlink()
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ConfigError, match=error):
        read_node(path)


def test_apply_creates_changes_and_keeps(path):
    """An object is created once, configured when its text differs, and survives a reread."""
    source = NodeSource.read(path)
    order = [ManifestFile("x.yaml", pod("x") + pod("y"))]
    first, changes = source.applied(order)
    assert changes == [
        {"kind": "Pod", "name": "default/x", "action": "created"},
        {"kind": "Pod", "name": "default/y", "action": "created"},
    ]
    order = [ManifestFile("x.yaml", pod("x") + pod("y", labels="a: b"))]
    second, changes = first.applied(order)
    assert [one["action"] for one in changes] == ["unchanged", "configured"]
    assert names(source) == ["default/a", "default/b", "default/c"]
    assert names(second.reread()) == [f"default/{name}" for name in "abcxy"]


def test_delete_takes_what_was_applied(path):
    """By kind and name, whatever else the document says."""
    source, _ = NodeSource.read(path).applied([ManifestFile("x.yaml", pod("x") + pod("y"))])
    left, changes = source.deleted([ManifestFile("x.yaml", pod("x", labels="other: x"))])
    assert [(one["name"], one["action"]) for one in changes] == [("default/x", "deleted")]
    assert names(left) == [f"default/{name}" for name in "abcy"]


def test_orders_have_a_namespace():
    """Objects that name none are in the order's."""
    (one,) = NodeSource.applied(NodeSource(None, None), [ManifestFile("x.yaml", pod("x"), "red")])[
        0
    ].extra
    assert one.origin.name == "red/x"


@pytest.mark.parametrize(
    ("verb", "text", "error"),
    [
        ("applied", pod("a"), r"x.yaml:1: Pod default/a belongs to the node file \(.*a.yml:1\)"),
        ("deleted", pod("a"), r"x.yaml:1: Pod default/a belongs to the node file"),
        ("deleted", pod("z"), r"x.yaml:1: Pod default/z was not applied"),
        ("deleted", pod("z") + pod("z"), r"Pod default/z was not applied"),
        ("applied", pod("z") + pod("z"), r"x.yaml:6: Pod default/z is defined in x.yaml:1 already"),
        ("applied", "a: [", r"x.yaml:\d: not YAML"),
    ],
)
def test_wrong_orders(path, verb, text, error):
    """Nothing of a refused order is kept."""
    source = NodeSource.read(path)
    with pytest.raises(ManifestError, match=error):
        getattr(source, verb)([ManifestFile("x.yaml", text)])
    assert names(source) == ["default/a", "default/b", "default/c"]
