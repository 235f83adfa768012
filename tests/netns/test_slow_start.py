"""A restarted daemon whose start takes its time, or is refused: packets move, the watchdog knows.

The manager is benchmarks/manager.py; here it has a watchdog, too, which only notes what it hears.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from benchmarks.manager import Manager
from benchmarks.restart import command_of
from tests.netns.managed import Managed, managed_node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.netns
WATCHDOG_S = 2.0
STOLEN = 0.9
"""The part of the time that a daemon does not run in."""
SLICE_S = 0.05


class Listening(Manager):
    """A manager that notes what it is told."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.fed: list[float] = []
        """When the daemon was ready or alive."""
        self.status: list[str] = []

    def _obey(self, fields: dict[str, str], fds: Sequence[int]) -> None:
        super()._obey(fields, fds)
        if "READY" in fields or "WATCHDOG" in fields:
            self.fed.append(time.monotonic())
        if "STATUS" in fields:
            self.status.append(fields["STATUS"])

    def hunger(self) -> float:
        """The longest time from READY on, up to now, in which nothing was heard, in seconds."""
        return max(b - a for a, b in pairwise([*self.fed, time.monotonic()]))


@pytest.fixture
def managed(monkeypatch) -> Iterator[Managed]:
    """Two pods on node1, one on node2; node1's manager has a watchdog."""
    monkeypatch.setattr("tests.netns.managed.Manager", Listening)
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    with managed_node() as one:
        yield one


def restart(managed: Managed) -> Listening:
    """Kill the daemon and start it again; wait until packets move."""
    manager = managed.manager
    assert isinstance(manager, Listening)
    manager.kill()
    managed.node.socket.unlink(missing_ok=True)
    manager.fed.clear()
    manager.status.clear()
    manager.start(command_of(managed.net, managed.node))
    assert manager.ready.wait(30)
    return manager


@contextlib.contextmanager
def stolen(pid: int) -> Iterator[None]:
    """Somebody else has the CPU most of the time."""
    over = threading.Event()

    def steal() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE_S * STOLEN)
            os.kill(pid, signal.SIGCONT)
            time.sleep(SLICE_S * (1 - STOLEN))

    thread = threading.Thread(target=steal)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_start_that_takes_long_feeds_the_watchdog(managed: Managed) -> None:
    """The node file comes after three times the watchdog's patience; packets move meanwhile."""
    config = managed.node.config
    text = config.read_text()
    config.unlink()
    os.mkfifo(config)
    manager = restart(managed)
    deadline = time.monotonic() + 3 * WATCHDOG_S
    while time.monotonic() < deadline:
        assert managed.net.reaches("a0", "10.244.2.10")
        time.sleep(0.2)
    assert manager.hunger() < WATCHDOG_S
    assert manager.status == ["forwarding with the tables of the daemon before, starting"]
    config.write_text(text)
    config.unlink()
    config.write_text(text)
    managed.net.lab.wait_for("the start", lambda: "node1: 2 of 2" in manager.status[-1])
    time.sleep(WATCHDOG_S)  # whoever feeds from now on does
    assert manager.hunger() < WATCHDOG_S


def test_start_without_cpu_feeds_the_watchdog(managed: Managed) -> None:
    """Nine tenths of the CPU are stolen from READY until everything is loaded and read."""
    manager = restart(managed)
    started = time.monotonic()
    with stolen(manager.pid):
        managed.net.lab.wait_for(
            "the start", lambda: any("node1: 2 of 2" in one for one in manager.status), 60
        )
    assert time.monotonic() - started > WATCHDOG_S, "it was no slow start"
    assert manager.hunger() < WATCHDOG_S
