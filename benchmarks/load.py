"""The load of the restart bench, the soak and the tests of restarts, between two pods."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from tests.netns.net import FIRST_DROP, Net
from tests.netns.programs import nginx

if TYPE_CHECKING:
    import subprocess

__all__ = ["Load", "said", "spawn"]

NUMBERS_OUT = """
import contextlib, json, signal, socket, struct, sys, time
address, port, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
refused = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, 32, 32 << 20)  # nothing may be lost in this pod
    sock.connect((address, port))
    number, began = 0, time.monotonic()
    while going:
        due = int((time.monotonic() - began) * rate)
        while number < due:
            try:
                sock.send(struct.pack("!Q", number) + bytes(56))
                number += 1
            except ConnectionRefusedError:
                refused += 1
        time.sleep(0.002)
    for _ in range(5):
        time.sleep(0.1)
        with contextlib.suppress(ConnectionRefusedError):  # it has heard the one before
            sock.send(struct.pack("!Q", 2**64 - 1))
print(json.dumps({"sent": number, "refused": refused}), flush=True)
"""
NUMBERS_IN = """
import json, socket, struct, sys, time
seen, gaps, holes = set(), [], []
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
    sock.bind(("0.0.0.0", int(sys.argv[1])))
    print("listening", flush=True)
    last, expected = None, 0
    while True:
        (number,) = struct.unpack("!Q", sock.recv(100)[:8])
        now = time.monotonic()
        if number == 2**64 - 1:
            break
        if last is not None and now - last > 0.005:
            gaps.append([now, round((now - last) * 1000, 1)])
        if number > expected:
            holes.append([now, number - expected])
        last, expected = now, max(expected, number + 1)
        seen.add(number)
print(json.dumps({"received": len(seen), "gaps": gaps, "holes": holes}), flush=True)
"""
IDLE_SERVER = """
import selectors, socket, sys
picker = selectors.DefaultSelector()
server = socket.create_server(("", int(sys.argv[1])), backlog=1024)
picker.register(server, selectors.EVENT_READ)
print("listening", flush=True)
while True:
    for key, _ in picker.select():
        if key.fileobj is server:
            picker.register(server.accept()[0], selectors.EVENT_READ)
            continue
        data = key.fileobj.recv(100)
        if data:
            key.fileobj.sendall(data)
        else:
            picker.unregister(key.fileobj)
            key.fileobj.close()
"""
IDLE_CLIENT = """
import json, signal, socket, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
def echo(one, text):
    try:
        one.sendall(text)
        return one.recv(100) == text
    except OSError:
        return False
flows = [socket.create_connection((address, port), timeout=10) for _ in range(count)]
opened = sum(echo(one, b"open") for one in flows)
print("listening", flush=True)
signal.sigwait([signal.SIGTERM])
alive = sum(echo(one, b"still there") for one in flows)
print(json.dumps({"opened": opened, "alive": alive}), flush=True)
"""
UDP_PORT, TCP_PORT, WEB_PORT = 7000, 7001, 8080
POD_A, POD_B = "10.244.0.10", "10.244.2.10"
"""Addresses of the two pods."""


def spawn(
    net: Net, pod: str, name: str, program: str, *arguments: object, wait: bool = True
) -> subprocess.Popen[bytes]:
    """Start a program in a pod; with ``wait``, until it has said that it listens."""
    log = f"load-{name}.log"
    child = net.lab.spawn(pod, sys.executable, "-c", program, *map(str, arguments), log=log)
    if wait:
        net.lab.wait_for(f"{name} in {pod}", lambda: "listening" in net.lab.log(log))
    return child


def said(net: Net, name: str) -> dict[str, Any]:
    """What a program that ``spawn`` started and that has ended has printed last, JSON."""
    told: dict[str, Any] = json.loads(net.lab.log(f"load-{name}.log", lines=1))
    return told


class Load:
    """Traffic between pod ``a0`` of node1 and ``b0`` of node2; ``finish`` says what became of it.

    Args:
        net: the lab; its daemons run.
        rate: datagrams a second, each way.
        flows: idle TCP connections.
        size: of the download, bytes; it takes what it takes.
        speed: of the download, bytes a second.
    """

    def __init__(self, net: Net, rate: int, flows: int, size: int, speed: int) -> None:
        self._net = net
        data = os.urandom(1 << 20) * (size >> 20)
        self._digest = hashlib.sha256(data).hexdigest()
        nginx(net, "b0", WEB_PORT, {"data": data})
        spawn(net, "b0", "server", IDLE_SERVER, TCP_PORT)
        self._idle = spawn(net, "a0", "idle", IDLE_CLIENT, POD_B, TCP_PORT, flows)
        self._ends = [spawn(net, pod, f"in-{pod}", NUMBERS_IN, UDP_PORT) for pod in ("a0", "b0")]
        self._senders = [
            spawn(net, pod, f"out-{pod}", NUMBERS_OUT, to, UDP_PORT, rate, wait=False)
            for pod, to in (("a0", POD_B), ("b0", POD_A))
        ]
        self._target = net.lab.directory / "download"
        self._curl = net.lab.spawn(
            "a0", "curl", "-sS", "--limit-rate", str(speed), "-o", str(self._target),
            f"http://{POD_B}:{WEB_PORT}/data", log="load-curl.log",
        )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """End the load.

        Returns:
            ``sent`` and ``lost`` datagrams; ``gaps`` ([seconds of the monotonic clock, ms]) and
            ``holes`` (with how many are missing) of both ways; connections ``opened`` and
            ``reset``; whether the download was ``whole``; and what is counted as ``dropped``.
        """
        net = self._net
        code = self._curl.wait(timeout=120)
        for one in (*self._senders, self._idle):
            one.terminate()
        for one in (*self._senders, self._idle, *self._ends):
            one.wait(timeout=60)
        out = [said(net, f"out-{pod}") for pod in ("a0", "b0")]
        back = [said(net, f"in-{pod}") for pod in ("b0", "a0")]
        idle = said(net, "idle")
        sent = [one["sent"] for one in out]
        digest = hashlib.sha256(self._target.read_bytes()).hexdigest()
        return {
            "sent": sum(sent),
            "lost": [a - b["received"] for a, b in zip(sent, back, strict=True)],
            "gaps": [one["gaps"] for one in back],
            "holes": [one["holes"] for one in back],
            "opened": idle["opened"],
            "reset": idle["opened"] - idle["alive"],
            "whole": code == 0 and digest == self._digest,
            "dropped": self._dropped(),
        }

    def _dropped(self) -> dict[str, int]:
        """Count what was dropped outside of fwd, or by it, where anything was."""
        found = {}
        for space in ("a0", "b0", "node1", "node2"):
            for name in ("tx_dropped", "rx_dropped"):
                text = self._cat(space, f"/sys/class/net/eth0/statistics/{name}")
                found[f"{space} eth0 {name}"] = int(text)
            for name, value in self._kernel(space, "Udp:").items():
                if name.endswith("Errors"):
                    found[f"{space} {name}"] = value
        for node in self._net.nodes.values():
            for row in self._net.rows(node, "metrics"):
                if row["code"] >= FIRST_DROP:
                    name = f"{node.name} {row['reason']}"  # one row a direction
                    found[name] = found.get(name, 0) + row["packets"]
        return {name: count for name, count in found.items() if count}

    def retransmitted(self) -> int:
        """Count the segments that the two pods have sent again so far."""
        return sum(self._kernel(pod, "Tcp:")["RetransSegs"] for pod in ("a0", "b0"))

    def _kernel(self, space: str, protocol: str) -> dict[str, int]:
        """The kernel's counters of a protocol."""
        rows = [line.split() for line in self._cat(space, "/proc/net/snmp").splitlines()]
        names, values = (row[1:] for row in rows if row[0] == protocol)
        return dict(zip(names, map(int, values), strict=True))

    def _cat(self, space: str, path: str) -> str:
        return self._net.lab.run(space, "cat", path).stdout
