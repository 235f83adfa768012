"""Build the datapath library into ``fwd.datapath._fwd``.

Three callers: pip (this file is the in-tree PEP 517 backend, over setuptools, so that no
top-level setup.py is needed), ``make`` (``python csrc/build_ext.py [--asan]``) and the tests.
abi.h is the single source of layouts (D2): the compiler's own preprocessor turns it into cdef.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cffi
from setuptools import build_meta as _setuptools_backend

CSRC = Path(__file__).resolve().parent
ROOT = CSRC.parent
MODULE = "fwd.datapath._fwd"
RELEASE_FLAGS = ["-O3", "-fno-plt", "-fvisibility=hidden", "-flto=auto"]
"""-flto: the linker knows that hidden functions have no other caller, which is worth 6 % of a
packet's instructions."""
ASAN_FLAGS = [
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
]
COMMON_FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"]


def cdef() -> str:
    """The declarations of abi.h as cffi wants them."""
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-E", "-P", "-DFWD_CDEF", f"-I{CSRC}", str(CSRC / "abi.h")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def builder(*, asan: bool = False) -> cffi.FFI:
    """The extension as a cffi builder; ``asan`` adds ASan and UBSan."""
    ffi = cffi.FFI()
    ffi.cdef(cdef())
    flags = ASAN_FLAGS if asan else RELEASE_FLAGS
    sources = [p for p in CSRC.rglob("*") if p.suffix in {".c", ".h", ".def"}]
    ffi.set_source(
        MODULE,
        '#include "unity.c"',
        include_dirs=[str(CSRC)],
        depends=sorted(os.path.relpath(p, ROOT) for p in sources),
        extra_compile_args=COMMON_FLAGS + flags,
        extra_link_args=ASAN_FLAGS[2:3] if asan else RELEASE_FLAGS,
    )
    return ffi


def ffibuilder() -> cffi.FFI:
    """What setuptools' ``cffi_modules`` calls."""
    return builder()


class _Backend(_setuptools_backend._BuildMetaBackend):
    """setuptools' backend with the one thing pyproject.toml cannot say: the cffi module."""

    def run_setup(self, setup_script: str = "setup.py") -> None:  # noqa: ARG002 - the base class's
        import setuptools  # noqa: PLC0415 - needs sys.argv as the backend left it

        setuptools.setup(
            cffi_modules=["csrc/build_ext.py:ffibuilder"],
            options={"bdist_wheel": {"py_limited_api": "cp311"}},
        )


_backend = _Backend()
build_wheel = _backend.build_wheel
build_sdist = _backend.build_sdist
build_editable = _backend.build_editable
get_requires_for_build_wheel = _backend.get_requires_for_build_wheel
get_requires_for_build_sdist = _backend.get_requires_for_build_sdist
get_requires_for_build_editable = _backend.get_requires_for_build_editable
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _backend.prepare_metadata_for_build_editable


def main() -> int:
    """Build in place, or with ``--asan`` into .build/asan beside the normal one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asan", action="store_true", help="ASan+UBSan build in .build/asan")
    asan = parser.parse_args().asan
    work = ROOT / ".build" / ("asan" if asan else "release")
    work.mkdir(parents=True, exist_ok=True)
    built = Path(builder(asan=asan).compile(tmpdir=str(work)))
    target = (work if asan else ROOT / "fwd" / "datapath") / "_fwd.abi3.so"
    # A new inode: a process that has the old file mapped must not see it change.
    staged = target.with_suffix(".new")
    shutil.copy2(built, staged)
    staged.replace(target)
    sys.stdout.write(f"{target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
