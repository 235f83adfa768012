"""The descriptor store, as its manager hears of it (benchmarks/manager.py is one)."""

from __future__ import annotations

import asyncio
import os

import pytest

from benchmarks.manager import Manager
from fwd.control.store import Store

UNIT = "fwd.service"


@pytest.fixture
def manager(tmp_path):
    """A manager that keeps descriptors."""
    with Manager(tmp_path, UNIT) as one:
        yield one


@pytest.fixture
def store(manager, monkeypatch):
    """Its store, with its systemctl first on the path."""
    monkeypatch.setenv("PATH", f"{manager._fake}:{os.environ['PATH']}")
    return Store(str(manager._path), 10, UNIT)


def test_what_is_put_is_kept_until_it_is_dropped(manager, store):
    """By name, as a duplicate that outlives ours; twice the same is kept once."""
    read, write = os.pipe()
    store.put("pipe", write)
    store.put("pipe", write)
    assert store.settle()
    os.close(write)
    assert manager.names() == ["pipe"]
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    store.drop("pipe")
    store.drop("never there")
    assert store.settle()
    assert os.read(read, 1) == b""
    os.close(read)
    assert (manager.names(), store.names, store.failed) == ([], set(), 0)


def test_without_a_store_nothing_is_said(manager):
    """No size, or no socket: silent, and every end is one for good."""
    for store in (Store(str(manager._path), 0), Store(None, 10)):
        store.put("x", 0)
        store.drop("x")
        assert store.settle()
        assert asyncio.run(store.ends_for_good())
    assert manager.names() == []


def test_environment_tells(monkeypatch):
    """The socket, the size and the unit's name; a size that is no number is none."""
    whole = {"NOTIFY_SOCKET": "/n", "FDSTORE": "5", "FWD_UNIT": UNIT}
    assert Store.from_environ(whole).present
    assert not Store.from_environ({**whole, "FDSTORE": "x"}).present
    assert not Store.from_environ({"FDSTORE": "5"}).present


def test_manager_that_is_gone_is_counted_and_waited_for_in_vain(tmp_path):
    """No exception: packets go on; settle says that it has not happened."""
    store = Store(str(tmp_path / "nobody"), 5)
    store.put("x", 0)
    store.drop("x")
    assert store.failed == 2
    store.settle()  # the pipe's end is closed with the message that was not sent


@pytest.mark.parametrize(
    ("jobs", "for_good"),
    [
        ("7 fwd.service stop running\n", True),
        ("7 fwd.service restart running\n", False),
        ("7 other.service stop running\n8 fwd.service restart waiting\n", False),
        ("", False),
    ],
)
def test_job_tells_a_stop_from_a_restart(manager, store, jobs, for_good):
    """Only a stop job of our own unit is an end for good."""
    manager.jobs.write_text(jobs)
    assert asyncio.run(store.ends_for_good()) is for_good


def test_unknown_unit_or_missing_systemctl_is_no_stop(manager, monkeypatch):
    """What is left is the manager's to close."""
    assert not asyncio.run(Store(str(manager._path), 10).ends_for_good())
    monkeypatch.setenv("PATH", "/nowhere")
    assert not asyncio.run(Store(str(manager._path), 10, UNIT).ends_for_good())
