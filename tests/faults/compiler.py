"""Small C programs of the tests, built when they are needed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ["compiled", "preload"]

WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror")


def compiled(source: str, directory: Path, *options: str) -> Path:
    """Build ``source`` of this folder into ``directory``; a failure is the compiler's text."""
    made = directory / source.removesuffix(".c")
    command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O1", *WARNINGS, *options, "-o", str(made)]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name(source)), "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return made


def preload(library: Path) -> dict[str, str]:
    """What a daemon needs in its environment to run on a library of ours."""
    if sanitized := os.environ.get("FWD_TEST_PRELOAD"):  # tests/sanitized preloads for itself
        return {"LD_PRELOAD": "", "FWD_TEST_PRELOAD": f"{sanitized} {library}"}
    return {"LD_PRELOAD": str(library)}
