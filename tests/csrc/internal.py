"""The C library with its inner functions exposed, for tests of one room at a time.

The declarations are taken from the headers themselves, so there is nothing to keep in step:
``abi.h`` and every header of ``base`` and ``tables`` go through the preprocessor, inline bodies
are cut off, and cffi compiles the whole library behind them once a session.
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
HEADERS = ("abi.h", "tables/arena.h", "base/checksum.h", "base/hash.h", "base/vxlan.h")
SYSTEM_HEADERS = ("assert.h", "stdbool.h", "stddef.h", "stdint.h", "string.h")
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-g"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@cache
def internal() -> tuple[Any, Any]:
    """Compile the library (once a session) and return ``(ffi, lib)``.

    ``lib`` has every function of ``abi.h``, ``base/*.h`` and ``tables/*.h``, inline ones too.
    """
    build = Path(tempfile.mkdtemp(prefix="fwd-internal-"))
    atexit.register(shutil.rmtree, build, ignore_errors=True)
    flags = FLAGS + (SANITIZE if os.environ.get("FWD_TEST_SANITIZE") == "1" else [])
    builder = cffi.FFI()
    builder.cdef(_declarations(build))
    builder.set_source(
        "_fwd_internal",
        "\n".join([*_library(), *(f'#include "{name}"' for name in HEADERS)]),
        include_dirs=[str(CSRC)],
        extra_compile_args=flags,
        extra_link_args=[flag for flag in flags if flag.startswith("-fsanitize")],
    )
    path = builder.compile(tmpdir=str(build))
    spec = importlib.util.spec_from_file_location("_fwd_internal", path)
    if spec is None or spec.loader is None:
        message = f"cannot import the test build of the C library from {path}"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ffi, module.lib


def _library() -> list[str]:
    """Return the lines that include the library's sources."""
    sources = [
        path.relative_to(CSRC)
        for room in ("base", "tables", "path", "io")
        for path in sorted((CSRC / room).glob("*.c"))
    ]
    names = re.findall(r"\b(\w+)\(", " ".join(_prototypes))
    text = "\n".join((CSRC / source).read_text() for source in sources)
    missing = [
        name
        for name in names
        if not re.search(rf"^[^\n#]*\b{name}\([^;{{}}]*\)\n\{{", text, re.MULTILINE)
        and not re.search(rf"static inline [^\n]*\b{name}\(", _raw_headers())
    ]
    return [
        *(f'#include "{name}"' for name in HEADERS),
        *(f"#pragma weak {name}" for name in missing),
        *(f'#include "{path}"' for path in sources),
    ]


_prototypes: list[str] = []


def _raw_headers() -> str:
    return "\n".join(path.read_text() for path in CSRC.rglob("*.h"))


def _declarations(build: Path) -> str:
    """Return what cffi needs to know, preprocessed from the headers."""
    stubs = build / "stubs"
    stubs.mkdir()
    for name in SYSTEM_HEADERS:
        (stubs / name).touch()
    source = "".join(f'#include "{name}"\n' for name in HEADERS)
    text = subprocess.run(  # noqa: S603
        ["cc", "-E", "-P", "-DFWD_CDEF", "-nostdinc", f"-I{CSRC}", f"-I{stubs}", "-xc", "-"],  # noqa: S607
        input=source,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    text = re.sub(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)", "", text)
    text = re.sub(r"static inline ([^{;]*\))\s*\{.*?^\}", r"\1;", text, flags=re.MULTILINE | re.DOTALL)
    _prototypes[:] = re.findall(r"^ *[a-z][^\n{};=]*\([^{};]*\)\s*;", text, flags=re.MULTILINE)
    return text
