"""What a daemon keeps: one arena, no garbage; the topology is drawn in daemons.py."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import time
import weakref
from itertools import pairwise
from pathlib import Path

import pytest
import uvloop

from fwd.control import memory
from fwd.control.memory import Garbage, freeze, thaw
from tests.control.daemons import NodeText, agents, free_port, pod
from tests.netlink.namespaces import namespace

ARENA_SIZE = 64 << 20
"""Address space of a glibc arena; the first one has none."""


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.other = self


@contextlib.contextmanager
def frozen():
    """As a daemon's process, with no collection but those asked for."""
    gc.disable()
    freeze()
    try:
        yield
    finally:
        thaw()
        gc.enable()


def left_after(garbage: Garbage) -> bool:
    """Whether a cycle made in a reload is there after it."""
    with garbage.collected():
        knot = weakref.ref(Knot())
    return knot() is not None


def refused(garbage: Garbage, knots: list[weakref.ref[Knot]]) -> None:
    """A reload that makes a cycle and fails."""
    with garbage.collected():
        knots.append(weakref.ref(Knot()))
        msg = "refused"
        raise ValueError(msg)


def test_cycles_end_with_the_reload_in_a_frozen_process_only():
    """Elsewhere a full collection would walk all there is."""
    with frozen():
        assert not left_after(Garbage())
    gc.disable()
    try:
        assert left_after(Garbage())
    finally:
        gc.enable()


def test_refused_reload_leaves_no_cycles_either():
    """The error passes."""
    knots: list[weakref.ref[Knot]] = []
    with frozen():
        with pytest.raises(ValueError, match="refused"):
            refused(Garbage(), knots)
        assert knots[0]() is None


def test_long_collection_is_made_up_for(monkeypatch):
    """After one of 3.5 ms come three reloads without."""
    clock = iter([0.0, 0.0035, 1.0, 1.0001])
    with frozen(), monkeypatch.context() as patch:
        patch.setattr(memory.time, "thread_time", lambda: next(clock))
        garbage = Garbage()
        assert [left_after(garbage) for _ in range(5)] == [False, True, True, True, False]


@pytest.mark.netns
def test_pods_that_come_and_go_leave_no_objects(tmp_path):
    """Without a full collection of Python's own: a pod that comes and goes left 1400 before."""

    async def main(a, b):
        text = NodeText(tmp_path / "1.yaml", free_port(), 1, [a])
        async with agents(text) as (agent,):
            with frozen():
                counts = []
                for _ in range(6):
                    for text.pods in ([a, b], [a]):
                        text.write()
                        await agent.reload()
                    counts.append(len(gc.get_objects()))
        assert counts[-1] - counts[1] < 200, counts

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def arenas(pid: int) -> int:
    """How many arenas besides the first a process has: a used part and an unused one, aligned."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    parts = [line.split() for line in lines]
    areas = [(*(int(end, 16) for end in part[0].split("-")), part[1]) for part in parts]
    return sum(
        start % ARENA_SIZE == 0 and end == gap and rest == start + ARENA_SIZE
        and (mode, other) == ("rw-p", "---p")
        for (start, end, mode), (gap, rest, other) in pairwise(areas)
    )  # fmt: skip


@pytest.mark.netns
@pytest.mark.parametrize("given", [False, True], ids=["first start", "restart"])
def test_threads_of_a_daemon_share_one_arena(tmp_path, given):
    """Whichever way it starts; four threads would have made three more."""
    api = tmp_path / "api.sock"
    text = NodeText(tmp_path / "1.yaml", free_port(), extra=f"api: {{socket: {api}}}\n")
    text.write()
    env = {**os.environ, "LISTEN_FDS": "0"} if given else dict(os.environ)
    with namespace() as netns:
        command = ["ip", "netns", "exec", netns, sys.executable, "-m", "fwd", "run", "--config"]
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        daemon = subprocess.Popen([*command, str(text.path)], env=env)
        try:
            deadline = time.monotonic() + 20
            with socket.socket(socket.AF_UNIX) as probe:
                while probe.connect_ex(str(api)) != 0:
                    assert daemon.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert arenas(daemon.pid) == 0
        finally:
            daemon.terminate()
            daemon.wait(20)
