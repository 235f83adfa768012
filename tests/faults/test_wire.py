"""A bad wire between two nodes, beside the kernel's VXLAN over one just as bad.

a0 -- TAP -- fwd node1 --+ wire +-- fwd node2 -- TAP -- b0
k0 -- veth -- vx7 of c1 -+ wire +- vx7 of c2 -- veth -- k1
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fwd.control.lab import Lab
from tests.faults.downloads import A0, B0
from tests.faults.wire import Wire
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import UNDERLAY, pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

K1 = "10.9.0.2"
STREAM_S = 2.0
FAULTS = {
    "loss 1 %": {"loss": 0.01},
    "loss 5 %": {"loss": 0.05},
    "loss 20 %": {"loss": 0.2},
    "double 1 %": {"twice": 0.01},
    "reorder 10 %": {"reorder": 0.1},
}
"""What the wire does."""
LEAST = 0.3
"""Of the kernel's throughput; a few seconds on a shared machine tell no more. The print does."""


STREAM_OUT = """
import random, socket
block = random.Random(1).randbytes(1 << 20)
with socket.create_server(("", 7100)) as server:
    while True:
        one, _ = server.accept()
        try:
            while True:
                one.sendall(block)
        except OSError:
            one.close()
"""
STREAM_IN = """
import json, pathlib, random, socket, sys, time
block = random.Random(1).randbytes(1 << 20)
go, seconds, at, counted, wrong, end = pathlib.Path(sys.argv[2]), float(sys.argv[3]), 0, 0, 0, None
with socket.create_connection((sys.argv[1], 7100), timeout=5) as sock:
    sock.settimeout(0.1)
    while end is None or time.monotonic() < end:
        if end is None and at > 0:
            print("streaming", flush=True)
            if go.exists():
                end = time.monotonic() + seconds
        try:
            data = sock.recv(min(1 << 18, len(block) - at % len(block)))
        except TimeoutError:
            continue
        if not data:
            sys.exit("the stream has ended")
        wrong += data != block[at % len(block) :][: len(data)]
        at += len(data)
        counted += len(data) if end else 0
print(json.dumps({"bytes": counted, "wrong": wrong}))
"""
"""An endless stream, and what compares it: it begins to count when a file is there."""


@dataclass
class Both:
    """The same pair of pods twice, with a stream to get in b0 and k1."""

    net: Net
    wire: Wire
    kernel_wire: Wire

    def order(self, **fault: float) -> None:
        """Let both wires be bad in the same way."""
        self.wire.order(**fault)
        self.kernel_wire.order(**fault)

    def stream(self, short: str, server: str, max_s: float = STREAM_S, **fault: float) -> float:
        """Megabits a second under a fault that comes when the stream runs; no byte is wrong."""
        lab, log = self.net.lab, f"stream-{short}-{time.monotonic_ns()}"
        go = lab.directory / f"{log}.go"
        client = lab.spawn(
            short, sys.executable, "-c", STREAM_IN, server, str(go), str(max_s), log=log
        )
        lab.wait_for("the stream", lambda: "streaming" in lab.log(log, 1))
        self.order(**fault)
        go.touch()
        code = client.wait(timeout=max_s + 10)
        self.order()
        assert code == 0, lab.log(log)
        told = json.loads(lab.log(log, 1))
        assert told["wrong"] == 0
        return float(told["bytes"]) * 8e-6 / max_s


def kernel_pods(net: Net) -> Wire:
    """k0 and k1 behind the kernel's own VXLAN, over a wire of their own."""
    lab = net.lab
    ends = ("c1", "c2")
    for short in (*ends, "k0", "k1"):
        lab.namespace(short)
    wire = Wire(lab, ends, ("192.168.57.1/24", "192.168.57.2/24"))
    for number, end in enumerate(ends):
        lab.wire([(end, "10.9.1.1/32"), (f"k{number}", f"10.9.0.{number + 1}/24")], 1450, "pod0")
        lab.run(end, "ip", "link", "add", "vx7", "type", "vxlan", "id", "7", "dstport", "8472",
                "local", f"192.168.57.{number + 1}", "remote", f"192.168.57.{2 - number}",
                "dev", "eth0", "udpcsum")  # fmt: skip
        lab.run(end, "ip", "link", "add", "br0", "type", "bridge")
        for port in ("vx7", "pod0"):
            lab.run(end, "ip", "link", "set", port, "master", "br0", "up")
        lab.run(end, "ip", "link", "set", "br0", "up")
    return wire


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    """The drawing above."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
        nodes = [net.add_node(data) for data in files]
        addresses = (f"{UNDERLAY['node1']}/24", f"{UNDERLAY['node2']}/24")
        wire = Wire(lab, ("node1", "node2"), addresses)
        for node in nodes:
            net.start(node)
        kernel_wire = kernel_pods(net)
        for short in ("b0", "k1"):
            lab.spawn(short, sys.executable, "-c", STREAM_OUT, log=f"server-{short}.log")
        for short in ("a0", "b0", "k0", "k1"):  # a narrow wire tells nobody: TCP must find out
            lab.run(short, "sysctl", "-qw", "net.ipv4.tcp_mtu_probing=1", "net.ipv4.tcp_retries1=1")
        assert net.reaches("a0", B0)
        assert net.reaches("k0", K1)
        yield Both(net, wire, kernel_wire)
        net.check()


@pytest.mark.parametrize("fault", FAULTS)
def test_stream_over_a_bad_wire(both: Both, fault: str) -> None:
    """No byte is wrong, and the throughput is in the kernel's range; afterwards all is well."""
    ours, kernels = (both.stream(*to, **FAULTS[fault]) for to in (("a0", B0), ("k0", K1)))
    print(f"{fault}: {ours:.1f} Mbit/s, kernel's VXLAN {kernels:.1f}, ratio {ours / kernels:.2f}")
    assert ours > LEAST * kernels
    assert both.net.ping("a0", B0).returncode == 0
    assert both.net.ping("b0", A0).returncode == 0


def test_wire_that_becomes_narrow_under_a_stream(both: Both) -> None:
    """From one moment on nothing over 1280 bytes passes: TCP probes, and the stream goes on."""
    ours, kernels = (both.stream(*to, 4, size_max=1280) for to in (("a0", B0), ("k0", K1)))
    print(f"narrow: {ours:.1f} Mbit/s, kernel's VXLAN {kernels:.1f}, ratio {ours / kernels:.2f}")
    assert both.wire.counters()["too_big"] > 0
    assert ours > LEAST * kernels > 0
    assert both.stream("a0", B0, 1) > 1


def test_wire_accounts_for_every_frame(both: Both) -> None:
    """What it was given is what it gave, less what it lost: the faults above were really there."""
    for wire in (both.wire, both.kernel_wire):
        seen = wire.counters()
        assert all(seen.values()), seen
        kept = seen["in"] + seen["doubled"] - seen["lost"] - seen["too_big"]
        assert abs(kept - seen["out"]) <= 2, seen
