"""What all stories share: the two machines, the report, and the words for what is asked often."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.vm.machine import Guest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.vm.report import Report

__all__ = ["CURL", "NGINX", "World", "show", "status", "until", "watched"]

CURL, NGINX = "10.244.0.108", "10.244.2.171"
"""The examples' pods: `curl` on node1, `nginx` on node2."""

API = "curl -s --max-time 30 --unix-socket /run/fwd/fwd.sock http://fwd/v1"


@dataclass
class World:
    """Two machines that have booted."""

    node1: Guest
    node2: Guest
    report: Report
    package: Path
    """The Debian package."""

    @property
    def nodes(self) -> tuple[Guest, Guest]:
        """Both."""
        return self.node1, self.node2

    def both(self, first: str, second: str | None = None) -> list[str]:
        """Run a script on each at the same time, as if somebody sat there; what they printed."""
        with ThreadPoolExecutor() as two:
            return list(two.map(Guest.out, self.nodes, (first, second or first)))


def show(guest: Guest, name: str) -> str:
    """A property of fwd's unit."""
    return guest.out(f"systemctl show -P {name} fwd.service")


def status(guest: Guest, timeout_s: float = 120) -> dict[str, Any]:
    """What the daemon says of itself, as soon as all its endpoints are ready.

    By curl: under tcg `fwd status` takes seconds to start, which would be in every figure.

    Raises:
        OSError: they are not in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        done = guest.run(f"{API}/status")
        told: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        if told and told["endpoints"]["states"].get("ready") == told["endpoints"]["total"]:
            return told
        if time.monotonic() > deadline:
            raise OSError(f"{guest.name} is not ready in {timeout_s} s: {done.stdout or done}")
        time.sleep(0.2)


def until(guest: Guest, script: str, timeout_s: float = 120) -> str:
    """Run a script until it succeeds; returns what it printed.

    Raises:
        OSError: it has not in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        done = guest.run(script)
        if done.returncode == 0:
            return done.stdout.strip()
        if time.monotonic() > deadline:
            raise OSError(
                f"{guest.name}, not in {timeout_s} s: {script}: {done.stdout}{done.stderr}"
            )
        time.sleep(0.5)


def watched(guest: Guest, options: str, act: Callable[[], object], word: str) -> list[str]:
    """Do something while `fwd monitor` listens on ``guest``; returns its lines with ``word``."""
    log = "/tmp/monitor.log"  # noqa: S108 - in the machine, that nobody else uses
    guest.out(f"rm -f {log}")
    guest.spawn("monitor", f"sh -c 'exec fwd monitor {options} > {log}'")
    try:
        until(guest, f"{API}/status | tr -d ' ' | grep -q '\"listeners\":1'")
        act()
        until(guest, f"grep -q '{word}' {log}")
    finally:
        guest.run("systemctl stop monitor")
    return [line for line in guest.out(f"cat {log}").splitlines() if word in line]
