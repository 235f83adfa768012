"""What a restart costs: one node's daemon is ended again and again, under load.

    python benchmarks/restart.py [--rounds 20] [--rate 10000] [--flows 200] [--out results.jsonl]

Two nodes in namespaces, as in tests/netns/worlds.py; a small manager (manager.py) keeps node1's
descriptors. All the while numbered datagrams go both ways, connections lie idle, a checksummed
download and iperf3 are under way, and node1's policy denies datagrams and SYNs that are sent both
ways (denied.py). Half of the ends are SIGTERM, as by `systemctl restart`, half SIGKILL. As root.

Printed: the gap seen by the numbered datagrams, those lost, TCP segments sent again, connections
reset, denied packets that arrived, whether the streams were whole. Exits 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.denied import Denied, rules  # noqa: E402 - a script finds its own tree first
from benchmarks.limits import Row, conclude, zeroes  # noqa: E402
from benchmarks.load import POD_B, Load  # noqa: E402
from benchmarks.manager import Manager  # noqa: E402
from benchmarks.parse import ParseError, iperf  # noqa: E402
from fwd.control.lab import Lab  # noqa: E402
from tests.netns.net import Net  # noqa: E402
from tests.netns.worlds import pod, two_nodes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwd.control.topology import LabNode

__all__ = ["command_of", "largest", "start", "verdict"]

KINDS = {"restart": 0, "kill": 1}
"""Kinds of ends, and which one of them is the first: they take turns."""
SPEED = 4 << 20
"""Bytes a second of the download."""


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


class Bulk:
    """One iperf3 flow from ``a0`` to ``b0``, or the other way round.

    Args:
        net: the lab; its daemons run.
        seconds: how long.
        options: further ones of iperf3's client.
    """

    def __init__(self, net: Net, seconds: int, options: Sequence[str]) -> None:
        self._net = net
        net.lab.spawn("b0", "iperf3", "-s", "-1", log="iperf3-server.log")
        listens = lambda: ":5201 " in net.lab.run("b0", "ss", "-ltn").stdout  # noqa: E731
        net.lab.wait_for("iperf3 in b0", listens)
        words = ["iperf3", "-c", POD_B, "-J", "-i", "0", "-t", str(seconds)]
        self._client = net.lab.spawn("a0", *words, *options, log="iperf3.log")

    def ended(self) -> bool:
        """Whether it goes no more."""
        return self._client.poll() is not None

    def finish(self) -> dict[str, Any]:
        """Wait for its end.

        Returns:
            ``bulk_mbit_s``, what the receiver got, and ``bulk_retransmits``; or ``bulk_broken``,
            iperf3's complaint.
        """
        self._client.wait(timeout=120)
        try:
            told = iperf(self._net.lab.log("iperf3.log", lines=10_000))
        except ParseError as error:
            return {"bulk_mbit_s": 0.0, "bulk_retransmits": 0, "bulk_broken": str(error)}
        rate = round(told.gbit_s * 1000, 1)
        return {"bulk_mbit_s": rate, "bulk_retransmits": told.retransmits, "bulk_broken": ""}


def largest(gaps: list[list[float]], since: float, until: float) -> float:
    """Return the largest gap seen in a window of the monotonic clock, ms."""
    return max((gap for at, gap in gaps if since <= at < until), default=0.0)


def measure(
    rounds: int, rate: int, flows: int, bulk_options: Sequence[str], pause_s: float
) -> dict[str, Any]:
    """Run the load over ``rounds`` restarts and as many kills."""
    with Lab("fwd-bench") as lab:
        net = Net(lab)
        files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
        files[0]["policy"] = rules()
        node, peer = (net.add_node(data) for data in files)
        net.wire(node, peer)
        net.start(peer)
        with Manager(lab.directory, "node1") as manager:
            start(net, manager, node)
            net.reaches("a0", POD_B)
            seconds = int(2 * rounds * (pause_s + 0.5)) + 2
            load = Load(net, rate, flows, seconds * SPEED, SPEED)
            bulk, denied = Bulk(net, seconds, bulk_options), Denied(net)
            time.sleep(1)
            ends, again, codes = [], [], []
            for position in range(2 * rounds):
                again.append(load.retransmitted())
                ends.append(time.monotonic())
                if position % 2 == KINDS["kill"]:
                    manager.kill()
                else:
                    codes.append(manager.end())
                manager.start(command_of(net, node))
                time.sleep(pause_s)
            ends.append(time.monotonic())
            again.append(load.retransmitted())
            early = bulk.ended()
            result = denied.finish() | bulk.finish() | load.finish()
            result |= _by_kind(result.pop("gaps"), result.pop("holes"), ends, again)
            result["retransmits"] = load.retransmitted()
            result["missing_flows"] = flows - result["opened"]
            result["complaints"] = net.complaints(node) + net.complaints(peer)
            result["complaints"] += [f"a daemon exited {code}" for code in codes if code]
            result["complaints"] += ["iperf3 ended before the last restart"] * early
            return result


def _by_kind(
    gaps: list[list[list[float]]],
    holes: list[list[list[float]]],
    ends: list[float],
    again: list[int],
) -> dict[str, list[float]]:
    """Tell restarts and kills apart: of each its gap in ms, datagrams lost, segments sent again."""
    windows = list(itertools.pairwise(ends))
    segments = [after - before for before, after in itertools.pairwise(again)]
    return {
        f"{what}_{kind}": values[first::2]
        for kind, first in KINDS.items()
        for what, values in (
            ("gap_ms", [max(largest(way, *window) for way in gaps) for window in windows]),
            ("lost", [sum(_lost(way, *window) for way in holes) for window in windows]),
            ("retransmits", segments),
        )
    }


def _lost(holes: list[list[float]], since: float, until: float) -> int:
    return sum(int(lost) for at, lost in holes if since <= at < until)


def verdict(result: dict[str, Any], gap_ms: float) -> list[Row]:
    """Judge.

    Args:
        result: as ``measure`` returns it.
        gap_ms: limit of the median gap, of restarts and of kills.
    """
    rows = []
    for kind in KINDS:
        median = statistics.median(result[f"gap_ms_{kind}"])
        text = f"{median:.0f} ms"
        rows.append(Row(f"median gap, {kind}", text, f"{gap_ms:.0f} ms", median <= gap_ms))
    rows += zeroes({
        **{f"datagrams lost, {kind}": sum(result[f"lost_{kind}"]) for kind in KINDS},
        "datagrams lost, all in all": sum(result["lost"]),
        "connections reset": result["reset"],
        "connections not made": result["missing_flows"],
        "denied packets that arrived": sum(result["denied_arrived"].values()),
        "complaints in the logs": len(result["complaints"]),
    })  # fmt: skip
    rows.append(Row("download whole", str(result["whole"]), "True", result["whole"]))
    whole = not result["bulk_broken"]
    rows.append(Row("bulk flow whole", result["bulk_broken"] or "True", "True", whole))
    return rows


def _table(result: dict[str, Any]) -> Iterator[str]:
    """What is no judgement: each kind of end, and how much there was of everything."""
    yield f"{'':8} ends   gap in ms: least median largest   lost   segments sent again"
    for kind in KINDS:
        gaps = sorted(result[f"gap_ms_{kind}"])
        yield (
            f"{kind:8} {len(gaps):4}   {gaps[0]:16.0f} {statistics.median(gaps):6.0f} "
            f"{gaps[-1]:7.0f}   {sum(result[f'lost_{kind}']):4}   "
            f"{sum(result[f'retransmits_{kind}'])}"
        )
    yield (
        f"{result['sent']} datagrams, {result['opened']} connections, iperf3 "
        f"{result['bulk_mbit_s']} Mbit/s, {result['denied_sent']} denied packets sent"
    )
    yield (
        f"segments sent again, all in all {result['retransmits']}, "
        f"{result['bulk_retransmits']} of them iperf3's"
    )
    yield f"counted as dropped: {result['dropped'] or 'none'}"


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=20, help="restarts, and as many kills")
    parser.add_argument("--rate", type=int, default=10_000, help="datagrams a second each way")
    parser.add_argument("--flows", type=int, default=200, help="idle TCP connections")
    parser.add_argument("--bulk", type=int, default=0, help="Mbit/s of iperf3, 0: no limit")
    parser.add_argument("--reverse", action="store_true", help="iperf3 sends towards node1")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two ends")
    parser.add_argument("--gap-ms", type=float, default=200.0, help="limit of the median gap")
    parser.add_argument("--out", type=Path, help="append a JSON line to this file")
    options = parser.parse_args()
    bulk = ["-b", f"{options.bulk}M", *["-R"] * options.reverse]
    result = measure(options.rounds, options.rate, options.flows, bulk, options.pause)
    print("\n".join(_table(result)))
    return conclude(verdict(result, options.gap_ms), result, options.out)


if __name__ == "__main__":
    sys.exit(main())
