"""Clocks that jump under a daemon: nothing expires that should not, nothing takes it for a hang.

No process can make the kernel's own clocks jump for one daemon alone; a time namespace sets them
before it starts. So clock.c adds what a test orders, between the daemon and the kernel.

a0 -- TAP -- fwd node1 (its clocks jump) ==== UDP 8472 ==== fwd node2 -- TAP -- b0
"""

from __future__ import annotations

import itertools
import mmap
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from benchmarks.load import IDLE_CLIENT, IDLE_SERVER
from fwd.control.lab import Lab
from tests.faults.compiler import compiled, preload
from tests.faults.downloads import A0, B0
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.control.topology import LabNode

pytestmark = pytest.mark.netns

FLOWS = 20
WATCHDOG_S = 2.0
HOUR_S, YEARS_S = 3600, 10 * 365 * 86400
JUMPS = {
    "wall clock ten years on": (YEARS_S, 0, 0),
    "wall clock ten years back": (-YEARS_S, 0, 0),
    "suspended for an hour": (HOUR_S, 0, HOUR_S),
    "all an hour on": (2 * HOUR_S, HOUR_S, 2 * HOUR_S),
    "boot clock an hour back": (2 * HOUR_S, HOUR_S, HOUR_S),
}
"""Seconds added to CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME. The kernel does the last to
nobody; a monotonic clock that goes back would stop every timer of any process."""


@dataclass
class Ticking:
    """Two nodes with idle connections; node1's clocks jump to order, its watchdog is watched."""

    net: Net
    node: LabNode
    offsets: mmap.mmap
    fed: list[float] = field(default_factory=list)
    """When the watchdog was fed, by our clock."""

    def jump(self, *seconds: int) -> None:
        """Add that much to the three clocks from now on."""
        self.offsets[:] = struct.pack("=qqq", *(one * 10**9 for one in seconds))

    def flows(self) -> int:
        """TCP connections that node1 knows."""
        rows = self.net.rows(self.node, "ct")
        return sum(7001 in {row["src_port"], row["dst_port"]} for row in rows)


@pytest.fixture(scope="module")
def ticking() -> Iterator[Ticking]:
    """One pod a node and twenty connections between them."""
    with Lab(PREFIX) as lab, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        net = Net(lab)
        files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
        node, peer = (net.add_node(data) for data in files)
        net.wire(node, peer)
        net.start(peer)
        library = compiled("clock.c", lab.directory, "-shared", "-fPIC")
        path = lab.directory / "clocks"
        path.write_bytes(bytes(24))
        with path.open("r+b") as file:
            one = Ticking(net, node, mmap.mmap(file.fileno(), 24))
        ear.bind(str(lab.directory / "notify"))
        threading.Thread(target=_listen, args=(ear, one.fed), daemon=True).start()
        net.start(node, env=preload(library) | {
            "FWD_TEST_CLOCKS": str(path),
            "NOTIFY_SOCKET": str(lab.directory / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)),
        })  # fmt: skip
        lab.spawn("b0", sys.executable, "-c", IDLE_SERVER, "7001", log="server.log")
        lab.wait_for("the server", lambda: "listening" in lab.log("server.log"))
        ask = (sys.executable, "-c", IDLE_CLIENT, B0, "7001", str(FLOWS))
        client = lab.spawn("a0", *ask, log="idle.log")
        lab.wait_for("the connections", lambda: "listening" in lab.log("idle.log"))
        yield one
        client.terminate()
        client.wait(timeout=30)
        assert f'"alive": {FLOWS}' in lab.log("idle.log"), "a connection did not outlive the jumps"
        net.check()
        lab.end([node.daemon.pid] if node.daemon else [])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END", str(lab.directory / "notify"))


def _listen(ear: socket.socket, fed: list[float]) -> None:
    while (data := ear.recv(4096)) != b"END":
        if data == b"WATCHDOG=1":
            fed.append(time.monotonic())


@pytest.mark.parametrize("jump", JUMPS)
def test_clock_jumps(ticking: Ticking, jump: str) -> None:
    """Connections stay, packets flow at once, and the watchdog is fed in time."""
    net, before = ticking.net, ticking.flows()
    assert before >= FLOWS
    moment = time.monotonic()
    ticking.jump(*JUMPS[jump])
    assert net.ping("a0", B0).returncode == 0
    assert net.ping("b0", A0).returncode == 0
    net.lab.wait_for("the watchdog's food", lambda: ticking.fed[-1] > moment + WATCHDOG_S, 10)
    times = [one for one in ticking.fed if one > moment - 1]
    assert max(late - early for early, late in itertools.pairwise(times)) < WATCHDOG_S
    assert ticking.flows() == before
    assert net.ping("a0", B0).returncode == 0
