"""csrc/build_ext.py: abi.h reaches cffi whole, and the backend builds a wheel that works alone."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import cffi
import pytest

from tests.csrc.internal import internal

ROOT = Path(__file__).resolve().parents[2]


def build_ext():
    """The module, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("build_ext", ROOT / "csrc" / "build_ext.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_build_ext_cdef_has_the_compilers_layouts() -> None:
    """Cffi's own idea of every struct of abi.h equals the compiler's (D2)."""
    parsed = cffi.FFI()
    text = build_ext().cdef()
    parsed.cdef(text)
    ffi, _ = internal()
    names = re.findall(r"^struct (\w+) \{", text, re.MULTILINE)
    assert len(names) > 15
    assert {n: parsed.sizeof(f"struct {n}") for n in names} == {
        n: ffi.sizeof(f"struct {n}") for n in names
    }


@pytest.mark.skipif(platform.machine() != "x86_64", reason="looks for x86's prefetch instruction")
@pytest.mark.skipif("FWD_TEST_EXTENSION" in os.environ, reason="the sanitised build is not -O3")
def test_build_ext_release_keeps_the_prefetches() -> None:
    """Calls of functions that only prefetch are dropped by gcc; the batch loop has its own."""
    extension = next((ROOT / "fwd" / "datapath").glob("_fwd*.so"))
    command = ["objdump", "-d", "--no-show-raw-insn", "--disassemble=fwd_dp_run", extension]
    code = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert code.count("prefetch") >= 3


@pytest.mark.slow
def test_build_ext_wheel_runs_without_the_sources(tmp_path: Path) -> None:
    """A wheel made by the in-tree backend carries the extension and replays a packet."""
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True,
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("fwd-*.whl")
    assert "-cp311-abi3-" in wheel.name
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert list(site.glob("fwd/datapath/_fwd*.so"))
    assert not list(site.glob("tests")) + list(site.glob("csrc"))
    code = (
        "from fwd.datapath.binding import Datapath, Packet; from fwd.model.rows import Params;"
        "dp = Datapath.create(Params()); print(dp.run(1, [Packet(b'', 7)])[0].drop)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
    )
    assert done.stdout.strip() == "246"
