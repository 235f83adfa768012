"""The Debian package: built, judged, installed without network and compiler, and purged."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("mmdebstrap", "lintian", "dpkg-deb", "objdump", "strip")
SANITIZED = "FWD_TEST_EXTENSION" in os.environ


def _obstacle() -> str | None:
    if SANITIZED:
        return "the package holds the release build"
    if platform.freedesktop_os_release().get("ID") != "debian":
        return "not on Debian"
    if os.geteuid() != 0:
        return "needs root for a chroot"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)} (make packages)" if missing else None


OBSTACLE = _obstacle()
pytestmark = [
    pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE)),
    pytest.mark.slow,
]


def run(*command: str | Path, **options: object) -> str:
    """Run a command; its output is the failure."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package() -> Path:
    """The package, built from this tree."""
    out = run(sys.executable, ROOT / "systemd/debian/build.py", cwd=ROOT)
    return ROOT / out.split()[-1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory, package) -> Iterator[Path]:
    """A bare Debian of this machine's release, with the package's file in it."""
    tree = tmp_path_factory.mktemp("debian") / "tree"
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    command = ["mmdebstrap", "--quiet", "--variant=required", "--include=python3"]
    run(*command, suite, tree, timeout=200)
    shutil.copy(package, tree / "fwd.deb")
    yield tree
    shutil.rmtree(tree, ignore_errors=True)


def inside(tree: Path, *command: str) -> str:
    """Run a command in the tree, in a network namespace with nothing in it."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    return run("unshare", "--net", "chroot", tree, *command, env={"PATH": path, "LC_ALL": "C"})


def installed_files(tree: Path) -> set[str]:
    """What of ours is in the tree."""
    homes = ("usr/lib/fwd", "etc/fwd", "usr/share/doc/fwd", "run/fwd")
    found = {str(path) for home in homes for path in (tree / home).rglob("*")}
    return found | {str(path) for path in tree.rglob("fwd*.service")}


def test_lintian_finds_no_error(package):
    """Nor anything else that is not argued for in lintian-overrides."""
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", package) == ""


def test_package_installs_runs_and_goes(tree):
    """Without network and compiler; purged, nothing is left, the user neither."""
    before = installed_files(tree)
    assert not (tree / "usr/bin/gcc").exists()
    assert not (tree / "usr/bin/pip").exists()
    inside(tree, "dpkg", "-i", "/fwd.deb")
    assert inside(tree, "fwd", "--version").startswith("fwd ")
    out = inside(tree, "fwd", "config", "check", "/etc/fwd/examples/node1.yaml")
    assert out.startswith("/etc/fwd/examples/node1.yaml: ok, node node1, 1 endpoints")
    step = '{"at": 0, "dump": "lxc"}\n'
    (tree / "steps").write_text(step)
    answer = inside(
        tree, "fwd", "replay", "--config", "/etc/fwd/examples/node1.yaml", "--in", "/steps"
    )
    assert '"ok": true' in answer, "the C library runs"
    assert "fwd" in inside(tree, "getent", "passwd", "fwd")
    assert inside(tree, "dpkg", "--verify", "fwd") == ""
    for name in ("fwd.8", "fwd-trace.8"):
        assert (tree / f"usr/share/man/man8/{name}.gz").exists()
    assert (tree / "usr/share/man/man5/fwd.yaml.5.gz").exists()
    assert "_FWD_COMPLETE" in (tree / "usr/share/bash-completion/completions/fwd").read_text()
    mine = tree / "etc/fwd/fwd.yaml"
    mine.write_text("node: mine\n")
    inside(tree, "dpkg", "-i", "/fwd.deb")  # the same again, as an upgrade
    assert mine.read_text() == "node: mine\n"
    inside(tree, "dpkg", "-r", "fwd")
    assert not (tree / "usr/lib/fwd").exists(), "byte code goes, too"
    assert mine.exists()
    assert (tree / "etc/fwd/examples/node1.yaml").exists(), "conffiles stay until purged"
    inside(tree, "dpkg", "-P", "fwd")
    assert installed_files(tree) == before
    assert "fwd:" not in (tree / "etc/passwd").read_text()


def test_lock_has_every_dependency(package):
    """In a version that pyproject.toml allows, each with its checksums."""
    import tomllib  # noqa: PLC0415

    from packaging.requirements import Requirement  # noqa: PLC0415

    assert package.exists()
    locked = {}
    for line in (ROOT / "systemd/debian/requirements.lock").read_text().splitlines():
        if "==" in line:
            name, _, rest = line.partition("==")
            locked[name.replace(".", "-")] = rest.split()[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        wanted = Requirement(text)
        assert locked[wanted.name.replace(".", "-")] in wanted.specifier
