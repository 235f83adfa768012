"""A daemon without devices: the real datapath and the real API, in a thread of the test.

Stands in for fwd/control/agent.py where no namespaces are to be had; what the API asks of the
agent is all it has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fwd.api.server import serving
from fwd.control.apply import apply, diff
from fwd.control.arena import Arena
from fwd.control.compile import compile_world
from fwd.control.node_source import NodeSource
from fwd.control.policy import explain
from fwd.datapath.binding import Datapath, Packet
from fwd.observe.monitor import MonitorHub
from tests.api.frames import NODE, syn

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fwd.control.node_source import ManifestFile
    from fwd.datapath.packet import Event, Outcome

__all__ = ["LabAgent", "LabDaemon", "lab_daemon"]


class LabAgent:
    """What the API needs of an agent, over a datapath that no device feeds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = NodeSource.read(path)
        self.node = self.source.node()
        self.world = compile_world(self.node)
        self._arena = Arena(self.world)
        self.dp = self._arena.dp
        apply(self.dp, diff(None, self.world))
        self.dp.generation = 1
        self.monitor = MonitorHub(self.dp, self._rule_of, {75: "lxca7eadf015921"}.get)
        self.started_at = time.time() - 192

    async def reload(self) -> dict[str, Any]:
        """Read the file again, as the agent does."""
        return self._go_over(self.source.reread())

    async def change_manifests(
        self, files: Sequence[ManifestFile], *, delete: bool
    ) -> dict[str, Any]:
        """Apply or delete, as the agent does."""
        source, objects = (self.source.deleted if delete else self.source.applied)(files)
        return {"objects": objects} | self._go_over(source)

    def _go_over(self, source: NodeSource) -> dict[str, Any]:
        node = source.node()
        world = compile_world(node)
        report = apply(self.dp, diff(self.world, world))
        self.node, self.world, self.source = node, world, source
        self.dp.generation += 1
        return {"revision": self.dp.generation, "upserted": report.upserted}

    def status(self) -> dict[str, Any]:
        """What the agent alone knows."""
        return {"state": "running", "tunnel": {"mtu": 1450}}

    def pump_stats(self) -> dict[str, int]:
        """Counters of a pump that moved twelve frames."""
        return {"rx_packets": 12, "tx_packets": 11, "punts": 1, "wakeups": 3}

    def endpoint_states(self) -> dict[int, str]:
        """Every endpoint is ready."""
        return dict.fromkeys(self.world.names, "ready")

    def view(self) -> Datapath:
        """The tables as they are now, copy on write."""
        return self._arena.view()

    def close(self) -> None:
        """Free the tables."""
        self._arena.close()

    def _rule_of(self, event: Event) -> Mapping[str, Any] | None:
        return explain(
            self.world.rules,
            -event.verdict if event.type == 5 else event.subtype,
            event.rule_id,
            self.world.names.get(event.policy_endpoint),
            "ingress" if event.dir == 1 else "egress",
        )


class LabDaemon:
    """A running LabAgent; the datapath is touched in its thread only."""

    def __init__(self, agent: LabAgent, loop: asyncio.AbstractEventLoop) -> None:
        self.agent = agent
        self.socket = agent.node.api.socket
        self._loop = loop

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the daemon's thread."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def send(self, frame: bytes = syn(), port: int = 2825, now_ns: int = 10**9) -> Outcome:
        """Put a frame through the datapath."""
        outcomes: list[Outcome] = self.call(
            lambda: self.agent.dp.run(now_ns, [Packet(frame, port)])
        )
        return outcomes[0]

    def wait_listeners(self, count: int) -> None:
        """Wait until so many monitor clients listen."""
        deadline = time.monotonic() + 10
        while self.call(lambda: self.agent.monitor.listeners) != count:
            assert time.monotonic() < deadline, f"there never were {count} listeners"
            time.sleep(0.01)


@contextmanager
def lab_daemon(
    directory: Path,
    text: str = NODE,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    listener: socket.socket | None = None,
) -> Iterator[LabDaemon]:
    """Run a daemon on ``directory/fwd.sock`` while the context is open."""
    path = directory / "node.yaml"
    path.write_text(text.replace("SOCKET", str(directory / "fwd.sock")), encoding="utf-8")
    agent = LabAgent(path)
    loop = loop_factory()
    started, ending = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serving(agent, listener):
            started.set()
            await ending.wait()

    def thread() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    worker = threading.Thread(target=thread)
    worker.start()
    try:
        assert started.wait(10), "the API did not start"
        yield LabDaemon(agent, loop)
    finally:
        loop.call_soon_threadsafe(ending.set)
        worker.join(10)
        agent.close()
