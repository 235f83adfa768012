"""The package and a Debian to put it in, once for all tests that want them."""

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
INSIDE = "python3,systemd,systemd-sysv,dbus,iproute2,iputils-ping,nftables,procps"


def _obstacle() -> str | None:
    if "FWD_TEST_EXTENSION" in os.environ:
        return "the package holds the release build"
    if platform.freedesktop_os_release().get("ID") != "debian":
        return "not on Debian"
    if os.geteuid() != 0:
        return "needs root for a chroot"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)} (make packages)" if missing else None


def run(*command: str | Path, **options: object) -> str:
    """Run a command; its output is the failure."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def package() -> Path:
    """The package, built from this tree."""
    if (obstacle := _obstacle()) is not None:
        pytest.skip(obstacle)
    out = run(sys.executable, ROOT / "systemd/debian/build.py", cwd=ROOT)
    return ROOT / out.split()[-1]


@pytest.fixture(scope="session")
def tree(tmp_path_factory, package) -> Iterator[Path]:
    """A minimal Debian of this machine's release, with the package's file in it."""
    tree = tmp_path_factory.mktemp("debian") / "tree"
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    command = ["mmdebstrap", "--quiet", "--variant=required", f"--include={INSIDE}"]
    run(*command, suite, tree, timeout=250)
    shutil.copy(package, tree / "fwd.deb")
    yield tree
    shutil.rmtree(tree, ignore_errors=True)
