"""A restarted daemon whose start takes its time, or is refused: packets move, the watchdog knows.

The manager is benchmarks/manager.py; here it has a watchdog, too, which only notes what it hears.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from benchmarks.manager import Manager
from benchmarks.restart import command_of
from fwd.api.client import ApiError, Client
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
        self.reloads = 0

    def _obey(self, fields: dict[str, str], fds: Sequence[int]) -> None:
        super()._obey(fields, fds)
        if "READY" in fields or "WATCHDOG" in fields:
            self.fed.append(time.monotonic())
        self.reloads += "RELOADING" in fields
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


def test_refused_node_file_leaves_the_old_rules(managed: Managed) -> None:
    """Packets move, one line says why and what to do, SIGHUP tries again, a good file starts."""
    config = managed.node.config
    text, before = config.read_text(), managed.link()
    config.write_text(f"{text}frob: 1\n")
    line = text.count("\n") + 1
    manager = restart(managed)
    managed.net.lab.wait_for("the refusal", lambda: "refused" in "".join(manager.status))
    assert manager.status[-1].startswith(
        "node file refused, packets go on by the rules before; correct it, then `systemctl reload "
        f"fwd`: {config}:{line}: frob: unknown key"
    )
    time.sleep(2 * WATCHDOG_S)
    ready = len(manager.fed)
    os.kill(manager.pid, signal.SIGHUP)
    managed.net.lab.wait_for("another try", lambda: manager.reloads and len(manager.fed) > ready)
    time.sleep(0.5)
    assert manager.running()
    assert manager.status[-1].startswith("node file refused")
    assert manager.log.read_text().count("frob: unknown key") == 1
    assert managed.net.reaches("a0", "10.244.2.10")
    config.write_text(text)
    os.kill(manager.pid, signal.SIGHUP)
    managed.net.lab.wait_for("the start", lambda: "node1: 2 of 2" in manager.status[-1])
    assert managed.net.rows(managed.node, "endpoint")
    assert managed.link() == before
    assert managed.net.reaches("a0", "10.244.2.10")
    time.sleep(WATCHDOG_S)
    assert manager.hunger() < WATCHDOG_S


def test_refused_start_answers_clients(managed: Managed) -> None:
    """On systemd's listener: 503 with the reason, and a reload that is refused or completes it."""
    config, path = managed.node.config, managed.node.config.with_suffix(".api")
    text = config.read_text()
    with socket.socket(socket.AF_UNIX) as listener, Client(path) as client:
        listener.bind(str(path))
        listener.listen()
        managed.manager.keep("api", listener.fileno())
        config.write_text(f"frob: 1\n{text}")
        manager = restart(managed)
        with pytest.raises(ApiError, match=r"node file refused, .*:1: frob: unknown key"):
            client.get("/v1/status")
        with pytest.raises(ApiError, match=r"nothing was changed: .*:1: frob: unknown key"):
            client.post("/v1/reload")
        assert manager.running()
        config.write_text(text)
        report = client.post("/v1/reload")
        assert report["notes"] == ["the start that was refused is complete"]
        assert client.get("/v1/status")["revision"] == report["revision"]
        client.post("/v1/reload")
        assert client.get("/v1/status")["revision"] == report["revision"] + 1
        managed.net.lab.wait_for("its status", lambda: "node1: 2 of 2" in manager.status[-1])


def test_end_of_a_refused_start_is_orderly(managed: Managed) -> None:
    """SIGTERM ends with 0, all stays in the store, and the next daemon takes it over."""
    config = managed.node.config
    text, before = config.read_text(), managed.link()
    config.write_text("node: 1\n")
    manager = restart(managed)
    managed.net.lab.wait_for("the refusal", lambda: "refused" in "".join(manager.status))
    assert manager.end() == 0
    config.write_text(text)
    managed.start()
    assert managed.link() == before
    assert not managed.said("connections are forgotten")
