"""Network namespaces of one test, and what is in them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["in_netns", "ip_json", "namespace", "open_descriptors"]

_numbers = itertools.count()


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A fresh namespace by name, gone at the end, also when the test deleted it itself."""
    name = f"fwdt-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def in_netns(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a namespace and wait for it."""
    return subprocess.run(
        ["ip", "netns", "exec", name, *command], capture_output=True, text=True, check=False
    )


def ip_json(name: str, *command: str) -> list[dict[str, Any]]:
    """What ``ip -json`` says in a namespace."""
    done = subprocess.run(
        ["ip", "-n", name, "-json", *command], capture_output=True, text=True, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return rows
