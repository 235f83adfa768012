"""What a daemon without traffic costs: memory, CPU and wake-ups by the number of its pods."""

from __future__ import annotations

import time
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.beds.bed import ADDRESS, Pair
from benchmarks.beds.fwd import Fwd
from benchmarks.lines import figure, remark
from benchmarks.parse import ParseError, process_switches, resident_bytes
from fwd.control.lab import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["METRICS", "IdlePods", "cost_of", "run"]

SETTLE_S = 2.0
GOAL_PODS = 50
GOAL_CPU = {"side": "<=", "must": 0.5, "aim": 0.1}
"""Percent of one core an idle daemon with GOAL_PODS pods may take."""
METRICS = {
    "rss_mb": ("resident memory", "MB"),
    "cpu_percent": ("CPU of one core, idle", "%"),
    "wakeups_s": ("wake-ups of its threads, idle", "1/s"),
}


class IdlePods(Fwd):
    """Node 1 with as many pods as asked, node 2 with one.

    The daemons feed a watchdog as under their unit; that nobody hears it makes no difference.
    """

    environ: ClassVar[dict[str, str]] = {
        "NOTIFY_SOCKET": "@fwd-bench-nobody", "WATCHDOG_USEC": "10000000",
    }  # fmt: skip
    pairs: ClassVar[dict[str, Pair]] = {"remote": Pair("a", "b", ADDRESS["b"])}

    def __init__(self, count: int) -> None:
        """``count`` pods on node 1: a, p1, p2 .."""
        names = ("a", *(f"p{index}" for index in range(1, count)))
        first = IPv4Address(ADDRESS["a"])
        addresses = {name: str(first + index) for index, name in enumerate(names)}
        super().__init__({"node1": names, "node2": ("b",)}, {**addresses, "b": ADDRESS["b"]})

    def serve(self) -> None:
        """Start nothing: nobody talks to these pods."""


def cost_of(pid: int, seconds: float) -> dict[str, float]:
    """What a process uses while ``seconds`` pass, by keys of ``METRICS``.

    Raises:
        ParseError: it ended meanwhile.
    """
    before, since = _spent(pid), time.monotonic()
    time.sleep(seconds)
    after, passed = _spent(pid), time.monotonic() - since
    return {
        "rss_mb": resident_bytes(_read(pid, "status")) / 1e6,
        "cpu_percent": 100 * (after[0] - before[0]) / passed,
        "wakeups_s": (after[1] - before[1]) / passed,
    }


def _spent(pid: int) -> tuple[float, int]:
    """CPU seconds and sleeps of all threads of a process."""
    nanoseconds = sleeps = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        nanoseconds += int(_read(pid, f"task/{task.name}/schedstat").split()[0])
        sleeps += process_switches(_read(pid, f"task/{task.name}/status"))
    return nanoseconds / 1e9, sleeps


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise ParseError(f"reading /proc/{pid}/{name}: {error}; has the daemon ended?") from error


def run(
    counts: Sequence[int], rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure each number of pods on a bed of its own; returns JSON lines."""
    missing = IdlePods.missing()
    if missing is not None:
        return [remark("missing", missing, row="pods", bed="fwd")]
    lines: list[dict[str, Any]] = []
    for count in counts:
        try:
            lines += _measured(count, rounds, seconds)
        except (LabError, ParseError) as error:
            lines.append(remark("failed", f"{count} pods: {error}", row="pods", bed="fwd"))
        last = {line.get("metric", "failed"): line.get("median") for line in lines[-len(METRICS) :]}
        tell(f"pods: {count}: {last}")
    return lines


def _measured(count: int, rounds: int, seconds: float) -> list[dict[str, Any]]:
    with IdlePods(count) as bed:
        time.sleep(SETTLE_S)
        samples = [cost_of(bed.daemon_pid("node1"), seconds) for _ in range(rounds)]
    place = {"row": "pods", "bed": "fwd", "pods": count, "seconds": seconds}
    lines = []
    for key in samples[0]:
        title, unit = METRICS[key]
        named = {**place, "metric": key, "title": f"{count} pods: {title}", "unit": unit}
        if (key, count) == ("cpu_percent", GOAL_PODS):
            named["goal"] = GOAL_CPU
        lines.append(figure(named, [sample[key] for sample in samples]))
    return [line for line in lines if line is not None]
