"""What a pod notices while a million conntrack entries are listed and counters are scraped.

One fwd bed whose conntrack table of other protocols is filled by datagrams that nobody answers.
Rounds alternate between quiet and busy: in the busy ones `fwd ct list` runs over and over on
node 1, and its metrics are scraped once a second.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.beds.bed import ADDRESS
from benchmarks.beds.fwd import Fwd
from benchmarks.lines import figure, remark
from benchmarks.parse import ParseError, sockperf
from benchmarks.rows import Goal, RoundTrips
from fwd.control.lab import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["GOAL", "FullTable", "entries", "run"]

FILL_PPS = 100_000
_SPARE = 1.1
"""Flows sent for each entry wanted; a datagram may be lost on the way to the table."""
METRICS_PORT = 9962
_URL = f"http://127.0.0.1:{METRICS_PORT}/metrics"
_SCRAPER = (
    "curl", "-sS", "-m", "10", "--rate", "1/s", "-o", "/dev/null", "-w", "%{stderr}%{http_code}\n",
    f"{_URL}?[1-100000]",
)  # fmt: skip
"""One process that goes on, as a scraper does: to start one a second would cost more than it."""
_SCRAPER_LOG = "scraper.log"
GOAL = Goal("quiet", 3.0, 1.5)


class FullTable(Fwd):
    """Two daemons; node 1's conntrack is to be filled."""

    def __init__(self, capacity: int) -> None:
        """Room for ``capacity`` entries, which live long enough to be listed."""
        conntrack = {"capacity": {"tcp": 65536, "any": capacity}, "lifetimes_s": {"any": 3600}}
        metrics = {"listen": f"127.0.0.1:{METRICS_PORT}"}
        super().__init__(sections={"conntrack": conntrack, "metrics": metrics})
        self.capacity = capacity

    def fill(self, udp: Path) -> int:
        """Send datagrams until the table is full; returns how many entries it has."""
        flows = int(self.capacity * _SPARE)
        command = ("fill", ADDRESS["b"], str(flows), str(FILL_PPS))
        for _ in range(3):
            self.lab.run("a", str(udp), *command, timeout_s=flows / FILL_PPS * 5 + 30)
            if self.entries() >= self.capacity * 0.95:
                break
        return self.entries()

    def scrape(self) -> str:
        """Give node 1's metrics as a scraper gets them."""
        return self.lab.run("node1", "curl", "-sS", "-m", "10", _URL, timeout_s=15).stdout

    def entries(self) -> int:
        """Entries in node 1's conntrack table of other protocols than TCP."""
        return entries(self.scrape())

    @contextmanager
    def busy(self) -> Iterator[list[int]]:
        """List conntrack over and over and scrape each second.

        The list holds, once the block is left, how many entries each listing had shown by then.

        Raises:
            ParseError: a scrape failed.
        """
        done: list[int] = []
        stop = threading.Event()
        lists = threading.Thread(target=self._dump, args=(stop, done))
        scraper = self.lab.spawn("node1", *_SCRAPER, log=_SCRAPER_LOG)
        lists.start()
        try:
            yield done
        finally:
            stop.set()
            lists.join()
            self.lab.end([scraper.pid])
        answers = (self.lab.directory / _SCRAPER_LOG).read_text().split()
        if not answers or set(answers) != {"200"}:
            raise ParseError(f"scraping each second got {', '.join(answers[-3:]) or 'nothing'}")

    def _dump(self, stop: threading.Event, done: list[int]) -> None:
        """Run `fwd ct list | wc -l`: who reads must not take the CPU from what is measured."""
        socket = str(self.node("node1").socket)
        argv = [sys.executable, "-m", "fwd", "--socket", socket, "ct", "list"]
        while not stop.is_set():
            lister = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            count = subprocess.Popen(["wc", "-l"], stdin=lister.stdout, stdout=subprocess.PIPE)
            assert lister.stdout is not None  # noqa: S101 - asked for above
            lister.stdout.close()
            while lister.poll() is None and not stop.wait(0.1):
                pass
            lister.terminate()
            lister.wait()
            done.append(int(count.communicate()[0]))


def entries(metrics: str) -> int:
    """Read the fill of cilium_ct_any4_global from a scrape.

    Raises:
        ParseError: the daemon does not tell.
    """
    found = re.search(
        r'^fwd_map_entries\{map_name="ct_any4_global"\} (\S+)$', metrics, re.MULTILINE
    )
    if found is None:
        raise ParseError("no fwd_map_entries of ct_any4_global in the metrics")
    return int(float(found[1]))


def run(
    capacity: int, rounds: int, seconds: int, udp: Path, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Measure; returns JSON lines, the busy one with its ratio to the quiet rounds."""
    missing = FullTable.missing()
    if missing is not None:
        return [remark("missing", missing, row="rr-dump", bed="fwd")]
    row, quiet, busy = RoundTrips(), list[float](), list[float]()
    try:
        with FullTable(capacity) as bed:
            held = bed.fill(udp)
            tell(f"rr-dump: node1 holds {held} conntrack entries")
            listed = 0
            for _ in range(rounds):
                quiet.append(_p99(row, bed, seconds))
                with bed.busy() as done:
                    time.sleep(1.0)  # the command itself has to start
                    busy.append(_p99(row, bed, seconds))
                listed += sum(done)
                told = f"p99 {quiet[-1]:.0f} us, {busy[-1]:.0f} us while {sum(done)} were listed"
                tell(f"rr-dump: {told}")
    except (LabError, ParseError) as error:
        return [remark("failed", str(error), row="rr-dump", bed="fwd")]
    place = {
        "row": "rr-dump", "metric": "p99_us", "unit": "us", "entries": held, "listed": listed,
        "seconds": seconds, "tool": " ".join(row.command("ADDRESS", seconds)),
    }  # fmt: skip
    title = f"TCP round trip with {held:,} conntrack entries, p99"
    still = figure({**place, "bed": "quiet", "title": title}, quiet)
    title += ", while they are listed"
    moving = figure({**place, "bed": "busy", "title": title}, busy, {"quiet": quiet})
    return [line for line in (still, moving) if line is not None]


def _p99(row: RoundTrips, bed: Fwd, seconds: int) -> float:
    pair = bed.pairs["remote"]
    done = bed.lab.run(
        pair.client, *row.command(pair.address, seconds), check=False, timeout_s=seconds + 30
    )
    return sockperf(done.stdout)["p99"]
