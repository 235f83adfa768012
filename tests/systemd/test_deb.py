"""The Debian package: built, judged, installed without network and compiler, and purged."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.systemd.conftest import ROOT, run

LOCK = ROOT / "systemd/debian/requirements.lock"


def inside(tree: Path, *command: str) -> str:
    """Run a command in the tree, in a network namespace with nothing in it."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return run("unshare", "--net", "chroot", tree, *command, env={"PATH": path, "LC_ALL": "C"})


def installed_files(tree: Path) -> set[str]:
    """What of ours is in the tree."""
    homes = ("usr/lib/fwd", "etc/fwd", "usr/share/doc/fwd", "run/fwd")
    found = {str(path) for home in homes for path in (tree / home).rglob("*")}
    return found | {str(path) for path in tree.rglob("fwd*.service")}


def test_lock_has_every_dependency():
    """In a version that pyproject.toml allows."""
    locked = {}
    for line in LOCK.read_text().splitlines():
        if "==" in line:
            name, _, rest = line.partition("==")
            locked[name.replace(".", "-")] = rest.split()[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        wanted = Requirement(text)
        assert locked[wanted.name.replace(".", "-")] in wanted.specifier
    assert LOCK.read_text().count("--hash=sha256:") > len(locked)


@pytest.mark.slow
def test_lintian_finds_nothing(package):
    """But what is argued for in lintian-overrides."""
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", package) == ""


@pytest.mark.slow
def test_package_installs_runs_and_goes(tree):
    """Without network and compiler; purged, nothing is left, the user neither."""
    before = installed_files(tree)
    assert not (tree / "usr/bin/gcc").exists()
    assert not (tree / "usr/bin/pip").exists()
    inside(tree, "dpkg", "-i", "/fwd.deb")
    assert inside(tree, "fwd", "--version").startswith("fwd ")
    example = "/etc/fwd/examples/node1.yaml"
    out = inside(tree, "fwd", "config", "check", example)
    assert out.startswith(f"{example}: ok, node node1, 1 endpoints")
    (tree / "steps").write_text('{"at": 0, "dump": "lxc"}\n')
    answer = inside(tree, "fwd", "replay", "--config", example, "--in", "/steps")
    assert '"ok": true' in answer, "the C library runs"
    assert inside(tree, "getent", "passwd", "fwd").startswith("fwd:")
    assert inside(tree, "dpkg", "--verify", "fwd") == ""
    for page in ("man8/fwd.8", "man8/fwd-trace.8", "man5/fwd.yaml.5"):
        assert (tree / f"usr/share/man/{page}.gz").exists()
    assert "_FWD_COMPLETE" in (tree / "usr/share/bash-completion/completions/fwd").read_text()
    mine = tree / "etc/fwd/fwd.yaml"
    mine.write_text("node: mine\n")
    inside(tree, "dpkg", "-i", "/fwd.deb")  # the same again, as an upgrade
    assert mine.read_text() == "node: mine\n"
    inside(tree, "dpkg", "-r", "fwd")
    assert not (tree / "usr/lib/fwd").exists(), "byte code goes, too"
    assert mine.exists()
    assert (tree / example.lstrip("/")).exists(), "conffiles stay until purged"
    inside(tree, "dpkg", "-P", "fwd")
    assert installed_files(tree) == before
    assert "fwd:" not in (tree / "etc/passwd").read_text()
