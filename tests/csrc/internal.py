"""The C library with its inner functions exposed, for tests of one room at a time.

The declarations are taken from the headers themselves, so there is nothing to keep in step:
they go through the preprocessor, bodies of inline functions are cut off, and cffi compiles
``unity.c`` behind them once a session.
With ``FWD_TEST_SANITIZE=1`` in the environment the build has ASan and UBSan on; Python must then
run with the sanitizers' runtimes preloaded.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import cffi

__all__ = ["internal"]

CSRC = Path(__file__).resolve().parents[2] / "csrc"
HEADERS = (
    "abi.h",
    "base/checksum.h",
    "base/gro.h",
    "base/gso.h",
    "base/hash.h",
    "base/parse.h",
    "base/vxlan.h",
    "tables/arena.h",
    "tables/ct_map.h",
    "tables/lpm.h",
)
SYSTEM_HEADERS = ("assert.h", "emmintrin.h", "stdbool.h", "stddef.h", "stdint.h", "string.h")
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-g")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@cache
def internal() -> tuple[Any, Any]:
    """Compile the library (once a session) and return ``(ffi, lib)``.

    ``lib`` has every function of ``abi.h``, ``base/*.h`` and ``tables/*.h``, inline ones too.
    """
    build = Path(tempfile.mkdtemp(prefix="fwd-internal-"))
    atexit.register(shutil.rmtree, build, ignore_errors=True)
    sanitize = SANITIZE if os.environ.get("FWD_TEST_SANITIZE") == "1" else ()
    builder = cffi.FFI()
    builder.cdef(_declarations(build))
    builder.set_source(
        "_fwd_internal",
        '#include "unity.c"\n' + _includes(),
        include_dirs=[str(CSRC)],
        extra_compile_args=[*FLAGS, *sanitize],
        extra_link_args=list(sanitize),
    )
    path = builder.compile(tmpdir=str(build))
    spec = importlib.util.spec_from_file_location("_fwd_internal", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib


def _includes() -> str:
    return "".join(f'#include "{name}"\n' for name in HEADERS)


def _declarations(build: Path) -> str:
    """Return what the headers declare, as cffi wants it."""
    stubs = build / "stubs"
    stubs.mkdir()
    for name in SYSTEM_HEADERS:
        (stubs / name).touch()
    text = subprocess.run(
        ["cc", "-E", "-P", "-DFWD_CDEF", "-nostdinc", f"-I{CSRC}", f"-I{stubs}", "-xc", "-"],
        input=_includes(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", "", text)
    text = re.sub(r"^static_assert\([^;]*;", "", text, flags=re.MULTILINE)
    body = re.compile(r"static inline ([^{;]*\))\s*\{.*?^\}", re.MULTILINE | re.DOTALL)
    return body.sub(r"\1;", text)
