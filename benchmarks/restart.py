"""What a restart costs: one node's daemon is ended again and again, under load.

    python benchmarks/restart.py [--rounds 20] [--rate 10000] [--flows 200] [--out results.jsonl]

Two nodes in namespaces, as in tests/netns/worlds.py; a small manager (manager.py) keeps node1's
descriptors. All the while numbered datagrams go both ways, connections lie idle, and one download
is under way. Half of the ends are SIGTERM, as by `systemctl restart`, half SIGKILL. Printed: the
gap seen by the datagrams, those lost, connections reset, whether the download was whole. As root.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.manager import Manager  # noqa: E402 - a script finds its own tree first
from fwd.control.lab import Lab  # noqa: E402
from tests.netns.net import FIRST_DROP, Net  # noqa: E402
from tests.netns.programs import nginx  # noqa: E402
from tests.netns.worlds import pod, two_nodes  # noqa: E402

if TYPE_CHECKING:
    import subprocess

    from fwd.control.topology import LabNode

__all__ = ["Load", "command_of", "start"]

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


def command_of(net: Net, node: LabNode) -> list[str]:
    """Return what runs a node's daemon, inside its namespace."""
    daemon = [sys.executable, "-m", "fwd", "run", "--config", str(node.config)]
    return ["/usr/bin/env", *net.lab.argv(node.name, daemon)]


def start(net: Net, manager: Manager, node: LabNode) -> None:
    """Start a node's daemon and wait until its API answers."""
    node.socket.unlink(missing_ok=True)
    manager.start(command_of(net, node))
    net.lab.wait_for(f"the daemon of {node.name}", lambda: _answers(node) or not manager.running())
    if not manager.running():
        message = f"{node.name} ended: {manager.log.read_text()}"
        raise RuntimeError(message)


def _answers(node: LabNode) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(node.socket)) == 0


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
        a, b = "10.244.0.10", "10.244.2.10"
        data = os.urandom(1 << 20) * (size >> 20)
        self._digest = hashlib.sha256(data).hexdigest()
        nginx(net, "b0", WEB_PORT, {"data": data})
        self._run("b0", "server", IDLE_SERVER, TCP_PORT)
        self._idle = self._run("a0", "idle", IDLE_CLIENT, b, TCP_PORT, flows)
        self._ends = [self._run(pod, f"in-{pod}", NUMBERS_IN, UDP_PORT) for pod in ("a0", "b0")]
        self._senders = [
            self._run(pod, f"out-{pod}", NUMBERS_OUT, to, UDP_PORT, rate, wait=False)
            for pod, to in (("a0", b), ("b0", a))
        ]
        self._target = net.lab.directory / "download"
        self._curl = net.lab.spawn(
            "a0", "curl", "-sS", "--limit-rate", str(speed), "-o", str(self._target),
            f"http://{b}:{WEB_PORT}/data", log="load-curl.log",
        )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """End the load.

        Returns:
            ``sent`` and ``lost`` datagrams; ``gaps`` ([seconds of the monotonic clock, ms]) and
            ``holes`` (with how many are missing) of both ways; connections ``opened`` and
            ``reset``; whether the download was ``whole``; and what is counted as ``dropped``.
        """
        code = self._curl.wait(timeout=120)
        for one in (*self._senders, self._idle):
            one.terminate()
        for one in (*self._senders, self._idle, *self._ends):
            one.wait(timeout=60)
        out = [self._said(f"out-{pod}") for pod in ("a0", "b0")]
        back = [self._said(f"in-{pod}") for pod in ("b0", "a0")]
        idle = self._said("idle")
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
            rows = [line.split() for line in self._cat(space, "/proc/net/snmp").splitlines()]
            names, values = (row for row in rows if row[0] == "Udp:")
            for name, value in zip(names, values, strict=True):
                if name.endswith("Errors"):
                    found[f"{space} {name}"] = int(value)
        for node in self._net.nodes.values():
            for row in self._net.rows(node, "metrics"):
                if row["code"] >= FIRST_DROP:
                    found[f"{node.name} {row['reason']}"] = row["packets"]
        return {name: count for name, count in found.items() if count}

    def _cat(self, space: str, path: str) -> str:
        return self._net.lab.run(space, "cat", path).stdout

    def _run(
        self, pod: str, name: str, program: str, *arguments: object, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        log = f"load-{name}.log"
        words = [sys.executable, "-c", program, *map(str, arguments)]
        child = self._net.lab.spawn(pod, *words, log=log)
        if wait:
            said = lambda: "listening" in self._net.lab.log(log)  # noqa: E731
            self._net.lab.wait_for(f"{name} in {pod}", said)
        return child

    def _said(self, name: str) -> dict[str, Any]:
        last = self._net.lab.log(f"load-{name}.log", lines=1)
        told: dict[str, Any] = json.loads(last)
        return told


def largest(gaps: list[list[float]], since: float, until: float) -> float:
    """Return the largest gap seen in a window of the monotonic clock, ms."""
    return max((gap for at, gap in gaps if since <= at < until), default=0.0)


def measure(rounds: int, rate: int, flows: int, pause_s: float) -> dict[str, Any]:
    """Run the load over ``rounds`` restarts and as many kills."""
    with Lab("fwd-bench") as lab:
        net = Net(lab)
        files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
        node, peer = (net.add_node(data) for data in files)
        net.wire(node, peer)
        net.start(peer)
        with Manager(lab.directory, "node1") as manager:
            start(net, manager, node)
            net.reaches("a0", "10.244.2.10")
            speed = 4 << 20
            size = (int(2 * rounds * (pause_s + 0.5)) + 2) * speed
            load = Load(net, rate, flows, size, speed)
            time.sleep(1)
            ends, codes = [], []
            for position in range(2 * rounds):
                ends.append(time.monotonic())
                if position % 2:
                    manager.kill()
                else:
                    codes.append(manager.end())
                manager.start(command_of(net, node))
                time.sleep(pause_s)
            ends.append(time.monotonic())
            result = load.finish()
            windows = list(itertools.pairwise(ends))
            for name, first in (("restart", 0), ("kill", 1)):
                result[f"gap_{name}_ms"] = [
                    max(largest(gaps, *window) for gaps in result["gaps"])
                    for window in windows[first::2]
                ]
                result[f"lost_{name}"] = [
                    sum(int(lost) for holes in result["holes"] for at, lost in holes
                        if window[0] <= at < window[1])
                    for window in windows[first::2]
                ]  # fmt: skip
            del result["gaps"], result["holes"]
            result["complaints"] = net.complaints(node) + net.complaints(peer)
            result["complaints"] += [f"a daemon exited {code}" for code in codes if code]
            return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=20, help="restarts, and as many kills")
    parser.add_argument("--rate", type=int, default=10_000, help="datagrams a second each way")
    parser.add_argument("--flows", type=int, default=200, help="idle TCP connections")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two ends")
    parser.add_argument("--out", type=Path, help="append a JSON line to this file")
    options = parser.parse_args()
    result = measure(options.rounds, options.rate, options.flows, options.pause)
    for name in ("restart", "kill"):
        gaps = sorted(result[f"gap_{name}_ms"])
        print(f"{name:8} {len(gaps)} times   gap median {statistics.median(gaps):.0f} ms, "
              f"largest {gaps[-1]:.0f} ms   datagrams lost {result[f'lost_{name}']}")  # fmt: skip
    print(f"datagrams lost {result['lost']} of {result['sent']}, "
          f"counted as dropped {result['dropped'] or 'none'}")  # fmt: skip
    print(f"connections reset {result['reset']} of {result['opened']}")
    print(f"download {'whole' if result['whole'] else 'NOT WHOLE'}")
    for line in result["complaints"]:
        print(line)
    if options.out:
        with options.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(result | {"command": " ".join(sys.argv)}) + "\n")


if __name__ == "__main__":
    main()
