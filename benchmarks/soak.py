"""Hours in minutes: pods come and go, the node file is read again and again, packets flow.

    python benchmarks/soak.py [--minutes 30] [--pods 50] [--reloads 60] [--out results.jsonl]

Two nodes in namespaces, as in tests/netns/worlds.py. On node1 a pod is made and another taken away
``--pods`` times a minute, every other time its namespace first, and its file is reloaded
``--reloads`` times a minute besides, each time with another policy. Meanwhile numbered datagrams go
both ways, connections lie idle, a download goes on, and every new pod pings node2's.

Memory is RssAnon of /proc/PID/status: the tables are in a memfd, whose size is fixed at the start.
Its slope is fitted over what follows the warm-up, a third of the time. Exits 1 when a limit is
missed. As root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.limits import Row, conclude, zeroes  # noqa: E402 - a script finds its own tree
from benchmarks.load import Load  # noqa: E402
from fwd.api.client import Client  # noqa: E402
from fwd.control.lab import Lab  # noqa: E402
from tests.netns.net import Net  # noqa: E402
from tests.netns.worlds import UNDERLAY, pod, two_nodes  # noqa: E402

if TYPE_CHECKING:
    from fwd.control.topology import LabNode

__all__ = ["Sample", "Soak", "slope", "soak", "verdict"]

WINDOW = 5
"""Pods that come and go, there at a time."""
FIRST, LAST = 10, 29
"""Their indices: a pod takes the address of one that went 20 pods before."""
SAMPLE_S = 5.0
SPEED = 64 << 10
"""Bytes a second of the download."""
B0 = "10.244.2.10"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a daemon."""

    at_s: float
    anon: int
    """Bytes of RssAnon."""
    fds: int
    taps: int
    """Open descriptors of /dev/net/tun."""


def slope(samples: list[Sample]) -> float:
    """Return the growth of memory after the warm-up, bytes an hour."""
    end = samples[-1].at_s
    late = [one for one in samples if one.at_s >= end / 3]
    if len(late) < 3:
        return 0.0
    fit = statistics.linear_regression([one.at_s for one in late], [one.anon for one in late])
    return fit.slope * 3600


def look(pid: int, at_s: float) -> Sample:
    """Ask the kernel about a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    anon = int(status.split("RssAnon:")[1].split()[0]) * 1024
    targets = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            targets.append(str(fd.readlink()))
    return Sample(at_s, anon, len(targets), targets.count("/dev/net/tun"))


@dataclass
class Soak:
    """Node1's file and the pods in it."""

    net: Net
    node: LabNode
    data: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the pods that come and go."""
    made: int = 0
    reloads: int = 0
    refused: int = 0
    lost_pings: int = 0

    def turn_over(self) -> None:
        """Take the oldest pod away and make a new one."""
        old = self.rows.pop(0) if len(self.rows) >= WINDOW else None
        index = FIRST + self.made % (LAST - FIRST + 1)
        row = pod("node1", index)
        self.rows.append(row)
        first = old is not None and self.made % 2 == 1
        if first:
            self._drop(old)
        self.made += 1
        self.reload()
        if old is not None and not first:
            self._drop(old)
        self.lost_pings += not self.net.reaches(row["name"].rpartition("/")[2], B0)

    def reload(self) -> None:
        """Read the file again, with another policy."""
        policy = {"endpoint": "default/a0", "direction": "egress", "identity": "any",
                  "proto": "tcp", "port": 20000 + self.reloads % 7, "action": "deny"}  # fmt: skip
        endpoints = [*self.data["endpoints"], *self.rows]
        self.net.write(self.node, {**self.data, "endpoints": endpoints, "policy": [policy]})
        self.reloads += 1
        with contextlib.closing(Client(self.node.socket)) as client:
            try:
                client.post("/v1/reload")
            except Exception as error:  # noqa: BLE001 - counted, and shown
                self.refused += 1
                print(f"reload refused: {error}", file=sys.stderr)

    def _drop(self, row: dict[str, Any] | None) -> None:
        if row is not None:
            self.net.lab.drop_namespace(self.node.pods.pop(row["name"]))


def soak(seconds: float, pods: float, reloads: float) -> dict[str, Any]:
    """Run it.

    Args:
        seconds: how long.
        pods: that come, and go, a minute.
        reloads: a minute, besides.
    """
    files = two_nodes([pod("node1", 0), pod("node1", 1)], [pod("node2", 0)])
    files[1]["ipcache"] += [
        {"prefix": f"{row['ip']}/32", "identity": row["identity"],
         "tunnel_endpoint": UNDERLAY["node1"]}
        for row in (pod("node1", index) for index in range(FIRST, LAST + 1))
    ]  # fmt: skip
    with Lab("fwd-bench") as lab:
        net = Net(lab)
        node, peer = (net.add_node(data) for data in files)
        net.wire(node, peer)
        for one in (node, peer):
            net.start(one)
        net.reaches("a0", B0)
        one = Soak(net, node, files[0])
        megabytes = max(1, round(seconds * SPEED / (1 << 20)))
        load = Load(net, rate=200, flows=50, size=megabytes << 20, speed=SPEED)
        samples = _run(one, (node, peer), seconds, 60 / pods, 60 / reloads)
        result = load.finish()
        del result["gaps"], result["holes"]
        one.rows.clear()
        one.reload()
        net.lab.wait_for("devices to go", lambda: look(_pid(node), 0).taps == 3, timeout_s=10)
        links = [row["ifname"] for row in json.loads(lab.run("node1", "ip", "-j", "link").stdout)]
        return result | {
            "seconds": seconds, "pods": one.made, "reloads": one.reloads, "refused": one.refused,
            "pings_failed": one.lost_pings,
            "links_left": sorted({*links} - {"lo", "eth0", "cilium_host"}),
            "taps_leaked": max(sample.taps for sample in samples["node1"]) - (WINDOW + 3),
            "missing": sum(abs(net.balance(each)["missing"]) for each in (node, peer)),
            "complaints": net.complaints(node) + net.complaints(peer),
            "memory": {name: [s[0].anon, s[-1].anon] for name, s in samples.items()},
            "slope": {name: slope(s) for name, s in samples.items()},
            "fds": {name: _fds(s) for name, s in samples.items()},
        }  # fmt: skip


def _pid(node: LabNode) -> int:
    return node.daemon.pid if node.daemon is not None else 0


def _fds(samples: list[Sample]) -> list[int]:
    """Return the most descriptors open in the first and in the second half, TAPs left out."""
    half = len(samples) // 2
    return [max(one.fds - one.taps for one in part) for part in (samples[:half], samples[half:])]


def _run(
    one: Soak, nodes: tuple[LabNode, LabNode], seconds: float, pod_s: float, reload_s: float
) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {node.name: [] for node in nodes}
    began = time.monotonic()
    due = {"pod": 0.0, "reload": reload_s / 2, "sample": min(SAMPLE_S, seconds / 20)}
    every = {"pod": pod_s, "reload": reload_s, "sample": due["sample"]}
    while (now := time.monotonic() - began) < seconds:
        name = min(due, key=lambda key: due[key])
        if due[name] > now:
            time.sleep(min(due[name] - now, 0.5))
            continue
        due[name] += every[name]
        if name == "pod":
            one.turn_over()
        elif name == "reload":
            one.reload()
        else:
            for node in nodes:
                samples[node.name].append(look(_pid(node), now))
    return samples


def verdict(result: dict[str, Any], limit: float) -> list[Row]:
    """Judge.

    Args:
        result: as ``soak`` returns it.
        limit: of the growth of memory, bytes an hour.
    """
    zero = {
        "pings of new pods failed": result["pings_failed"],
        "reloads refused": result["refused"],
        "datagrams lost": sum(result["lost"]),
        "connections reset": result["reset"],
        "TAPs leaked": result["taps_leaked"],
        "links left": len(result["links_left"]),
        "packets without an outcome": result["missing"],
        "complaints in the logs": len(result["complaints"]),
    }
    rows = zeroes(zero)
    rows.append(Row("download whole", str(result["whole"]), "True", result["whole"]))
    for node in result["slope"]:
        first, last = result["fds"][node]
        rows.append(Row(f"descriptors of {node}", f"{first} -> {last}", "flat", last <= first + 1))
        figure, allowed = (f"{one / (1 << 20):+.2f} MB/h" for one in (result["slope"][node], limit))
        rows.append(Row(f"memory of {node}", figure, allowed, result["slope"][node] <= limit))
    return rows


def main() -> int:
    """Run, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--pods", type=float, default=50, help="that come, and go, a minute")
    parser.add_argument("--reloads", type=float, default=60, help="a minute, besides")
    parser.add_argument("--out", type=Path, help="append a JSON line to this file")
    options = parser.parse_args()
    result = soak(options.minutes * 60, options.pods, options.reloads)
    rows = verdict(result, limit=1 << 20)
    print(f"{result['seconds'] / 60:.1f} minutes: {result['pods']} pods came, {result['reloads']} "
          f"reloads, {result['sent']} datagrams, {result['opened']} connections")  # fmt: skip
    return conclude(rows, result, options.out)


if __name__ == "__main__":
    sys.exit(main())
