"""What a manager hears of a start, over a real socket of a fake one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from fwd.control import feeding as module
from fwd.control.feeding import Feeding
from fwd.control.notify import Notifier
from fwd.control.revive import Revived
from fwd.control.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHDOG_S = 0.04
SOON_S = 0.15


@pytest.fixture
def ear(tmp_path) -> Iterator[socket.socket]:
    """The manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


def feed(ear: socket.socket, revived: Revived) -> Feeding:
    """Begin to feed this manager."""
    return Feeding(revived, Notifier(ear.getsockname(), WATCHDOG_S))


async def heard(ear: socket.socket) -> set[str]:
    """What is said within a few of the watchdog's times, from now on."""
    said = set()
    for pause_s in (0, SOON_S):
        said.clear()
        await asyncio.sleep(pause_s)
        with contextlib.suppress(BlockingIOError):
            while True:
                said.add(ear.recv(4096).decode())
    return said


def test_moving_packets_feed_and_stuck_ones_do_not(ear):
    """The pump is asked, as it is later; while tables are made anew there is none."""

    async def main() -> list[set[str]]:
        moving = [True]
        revived = Revived(Store(), running=True)
        revived.pump = SimpleNamespace(progress=lambda: moving[0])
        feeding = feed(ear, revived)
        told = [await heard(ear)]
        moving[0] = False
        told.append(await heard(ear))
        revived.pump, revived.running = None, False
        told.append(await heard(ear))
        feeding.stop()
        told.append(await heard(ear))
        return told

    fed, stuck, anew, over = asyncio.run(main())
    assert "WATCHDOG=1" in fed
    assert stuck == set()
    assert anew == {"WATCHDOG=1"}
    assert over == set()


def test_try_that_hangs_is_not_fed_for_ever(ear, monkeypatch):
    """Its time over there is nothing; to wait for a reload takes as long as it takes."""
    monkeypatch.setattr(module, "_TRY_S", 0.1)

    async def main() -> list[set[str]]:
        feeding = feed(ear, Revived(Store()))
        await asyncio.sleep(0.12)
        told = [await heard(ear)]
        feeding.waiting("node file refused")
        told.append(await heard(ear))
        await asyncio.sleep(0.12)
        told.append(await heard(ear))
        feeding.trying()
        await asyncio.sleep(0.12)
        told.append(await heard(ear))
        feeding.stop()
        return told

    hung, waiting, still, again = asyncio.run(main())
    assert hung == set()
    assert "WATCHDOG=1" in waiting
    assert still == {"WATCHDOG=1"}
    assert again == set()


def test_nobody_listening_is_told_nothing():
    """Without a manager no task runs."""

    async def main() -> int:
        feeding = Feeding(Revived(Store()), Notifier())
        tasks = len(asyncio.all_tasks())
        feeding.waiting("x")
        feeding.stop()
        return tasks

    assert asyncio.run(main()) == 1
