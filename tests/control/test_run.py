"""Signals, and the start that fails; the topology is drawn in daemons.py."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket

import pytest
import structlog
import uvloop

from fwd.config.load import ConfigError
from fwd.control.run import run_agent
from tests.control.daemons import NodeText, free_port, pod, silent, until
from tests.netlink.namespaces import ip_json

pytestmark = pytest.mark.netns


def devices(*pods) -> list[list[str]]:
    """Device names in each pod's namespace."""
    return [[row["ifname"] for row in ip_json(one.netns, "link")] for one in pods]


def test_signals_end_and_reload_a_daemon(tmp_path):
    """SIGHUP reloads or says why not, SIGTERM ends with 0 and no device; frozen in between."""

    async def main(a, b):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a])
        text.write()
        started = asyncio.Event()
        running = []

        @contextlib.asynccontextmanager
        async def serving(agent):
            running.append(agent)
            started.set()
            yield

        task = asyncio.ensure_future(run_agent(text.path, serving))
        async with asyncio.timeout(5):
            await started.wait()
        await asyncio.sleep(0.05)
        text.pods.append(b)
        text.write()
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: running[0].dp.generation == 2)
        await until(lambda: running[0].endpoint_states() == {10: "ready", 11: "ready"})
        text.path.write_text("node: 1\n")
        with structlog.testing.capture_logs() as logs:
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: any("error" in one for one in logs))
        (error,) = (one["error"] for one in logs if "error" in one)
        assert "1.yaml:1: node" in error
        assert not task.done()
        assert gc.get_freeze_count() > 10_000
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 0
        assert gc.get_freeze_count() == 0
        assert devices(a, b) == [["lo"]] * 2

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_termination_during_the_start_is_orderly(tmp_path):
    """A SIGTERM that comes while devices are being made ends with 0 and none left."""

    async def main(a, b, delay_s):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a, b])
        text.write()
        task = asyncio.ensure_future(run_agent(text.path, silent))
        await asyncio.sleep(delay_s)
        if not task.done():  # nobody else would catch the signal
            os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 0

    with pod("a", 10) as a, pod("b", 11) as b:
        for delay_s in (0, 0.02, 0.05, 0.1):
            uvloop.run(main(a, b, delay_s))
            assert devices(a, b) == [["lo"]] * 2


def test_unreadable_file_is_an_error_with_its_name(tmp_path):
    """run_agent raises what the command line prints."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot read"):
        uvloop.run(run_agent(tmp_path / "nowhere.yaml", silent))


def test_manager_hears_of_every_turn_of_a_life(tmp_path, monkeypatch):
    """Ready, what runs, a reload and its end, also of a refused one, the watchdog, the end."""

    async def main(a, ear):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a])
        text.write()
        said: list[str] = []

        def heard(*want: str) -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    said.append(ear.recv(4096).decode().partition("\n")[0])
            return all(one in said for one in want)

        task = asyncio.ensure_future(run_agent(text.path, silent))
        status = "STATUS=n1: 1 of 1 endpoints ready, 1 peers, revision"
        await until(lambda: heard("READY=1", f"{status} 1", "WATCHDOG=1"))
        said.clear()
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: heard("RELOADING=1", "READY=1", f"{status} 2"))
        assert said.index("RELOADING=1") < said.index("READY=1")
        said.clear()
        text.path.write_text("node: 1\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: heard("RELOADING=1", "READY=1"))
        os.kill(os.getpid(), signal.SIGTERM)
        assert await task == 0
        assert heard("STOPPING=1")

    with pod("a", 10) as a, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        uvloop.run(main(a, ear))
