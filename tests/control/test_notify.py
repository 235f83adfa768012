"""What a service manager hears, over a real socket of a fake one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

import pytest

from fwd.control.notify import Notifier, keep_telling


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """The manager's socket, and the address it hands out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = str(tmp_path / "notify") if request.param == "path" else f"@fwd-test-{os.getpid()}"
        sock.bind(name.replace("@", "\0"))
        sock.setblocking(False)
        yield sock, name


def heard(sock: socket.socket) -> list[str]:
    """Everything that was said so far."""
    said = []
    with contextlib.suppress(BlockingIOError):
        while True:
            said.append(sock.recv(4096).decode())
    return said


def test_each_message_is_one_datagram(manager):
    """In the words of sd_notify(3); a status that stands already is not repeated."""
    sock, name = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": name})
    notifier.ready()
    for text in ("n1: up", "n1: up", "n1: down"):
        notifier.status(text)
    notifier.alive()
    notifier.stopping()
    assert heard(sock) == [
        "READY=1", "STATUS=n1: up", "STATUS=n1: down", "WATCHDOG=1", "STOPPING=1",
    ]  # fmt: skip


def test_reload_is_announced_and_ended_whatever_becomes_of_it(manager):
    """RELOADING with the time of newer systemds, then READY, also after a refusal."""
    sock, name = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": name})
    with pytest.raises(ValueError, match="refused"), notifier.reloading():
        raise ValueError("refused")
    first, second = heard(sock)
    assert first.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert int(first.rpartition("=")[2]) > 0
    assert second == "READY=1"


def test_nobody_listening_is_no_error(tmp_path):
    """Without a socket, with a dead one, and with one that is full, packets go on."""
    for notifier in (Notifier.from_environ({}), Notifier(str(tmp_path / "none"))):
        notifier.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "deaf"))
        for _ in range(2000):  # more than any queue holds
            Notifier(str(tmp_path / "deaf")).alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid() + 1)}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_watchdog_interval_is_the_managers(environ, seconds):
    """Only what is meant for this process counts."""
    assert Notifier.from_environ(environ).watchdog_s == seconds


def test_watchdog_is_fed_while_there_is_progress_only(manager):
    """The loop runs on, the status too: the manager hears nothing once packets are stuck."""
    sock, name = manager

    async def main():
        moving = True
        notifier = Notifier(name, watchdog_s=0.04)
        task = asyncio.ensure_future(keep_telling(notifier, lambda: "well", lambda: moving))
        await asyncio.sleep(0.2)
        fed = heard(sock)
        moving = False
        await asyncio.sleep(0.05)
        heard(sock)  # what was on its way
        await asyncio.sleep(0.1)
        starved = heard(sock)
        task.cancel()
        return fed, starved

    fed, starved = asyncio.run(main())
    assert fed[0] == "STATUS=well"
    assert set(fed[1:]) == {"WATCHDOG=1"}
    assert len(fed) >= 4
    assert starved == []


def test_no_watchdog_is_never_fed(manager):
    """The status is told all the same."""
    sock, name = manager

    async def main():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await keep_telling(Notifier(name), lambda: "well", lambda: True)

    asyncio.run(main())
    assert heard(sock) == ["STATUS=well"]
