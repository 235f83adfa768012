"""What is measured on a bed: one run of one tool, its figures read from the receiving side.

Each row runs the same command on every bed; only the server's address may differ.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.beds.bed import BULK_PORT, LOAD_PORT, RR_PINNED_PORT, RR_PORT
from benchmarks.parse import ParseError, blast, busy_seconds, iperf, sockperf, wrk

if TYPE_CHECKING:
    from benchmarks.beds.bed import Bed

__all__ = ["QUICK_ROWS", "ROWS", "Goal", "Metric", "Row", "busy_now"]

UDP_PORT = 9000
RR_BYTES = 64
WRK_CONNECTIONS = 64
LOAD_FLOWS = 4
_GRACE_S = 20.0
"""Seconds a tool may take beyond what it was told before it counts as hung."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What fwd's figure is to be, as a multiple of another bed's in the same round."""

    to: str
    must: float
    aim: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a row."""

    key: str
    title: str
    unit: str
    lower_is_better: bool = False
    goals: tuple[Goal, ...] = ()
    compared: bool = True
    """Whether a ratio to another bed means anything."""


class Row(ABC):
    """One line of the table."""

    key: str
    title: str
    pair = "remote"
    """Which pair of pods of a bed."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Programs it calls."""
    service = False
    """Whether it goes through a service address."""
    metrics: tuple[Metric, ...]

    @abstractmethod
    def command(self, address: str, seconds: int) -> list[str]:
        """What the client pod runs."""

    @abstractmethod
    def run(self, bed: Bed, seconds: int, udp: Path) -> dict[str, float]:
        """Measure once.

        Args:
            bed: Where.
            seconds: How long.
            udp: The built benchmarks/udp.c.

        Returns:
            Values by ``Metric.key``.

        Raises:
            LabError: a tool hung or could not be started.
            ParseError: a tool gave no result.
        """

    def can_run(self, bed: type[Bed]) -> bool:
        """Whether the bed has what the row asks for."""
        return self.pair in bed.pairs and (bed.services or not self.service)


def busy_now() -> float:
    """Seconds the machine's CPUs have been busy since boot."""
    return busy_seconds(Path("/proc/stat").read_text())


def _tcp_goals(flows: int, pair: str, back: bool) -> tuple[Goal, ...]:
    if pair == "local":
        return (Goal("bridge", 0.40, 0.80),) if flows == 1 else ()
    if flows == 1 and not back:
        return Goal("kernel", 0.60, 0.85), Goal("ovs", 6, 10), Goal("fastd", 8, 12)
    goals = {1: Goal("kernel", 0.60, 0.85), 4: Goal("kernel", 0.33, 0.60)}
    return (goals[flows],) if flows in goals else ()


class TcpBulk(Row):
    """iperf3, received payload, and what the whole machine spent on it."""

    needs = ("iperf3",)

    def __init__(self, flows: int, pair: str = "remote", back: bool = False) -> None:
        """``back``: the server sends."""
        where = "" if pair == "remote" else "same-node-"
        self.key = f"{where}tcp-{flows}{'-back' if back else ''}"
        self.title = f"{'same node, ' if where else ''}TCP bulk, {flows} flow{'s'[: flows - 1]}"
        self.title += ", server to client" if back else ""
        self.flows, self.pair, self.back = flows, pair, back
        self.metrics = (
            Metric("gbit_s", self.title, "Gbit/s", goals=_tcp_goals(flows, pair, back)),
            Metric("cpu_s_gb", f"{self.title}: CPU of the machine", "s/GB", True),
        )

    def command(self, address: str, seconds: int) -> list[str]:
        """Give iperf3's command line."""
        flags = ["-t", str(seconds), "-P", str(self.flows), "-J", *(["-R"] if self.back else [])]
        return ["iperf3", "-c", address, "-p", str(BULK_PORT), *flags]

    def run(self, bed: Bed, seconds: int, udp: Path) -> dict[str, float]:  # noqa: ARG002
        """See ``Row.run``."""
        pair = bed.pairs[self.pair]
        before = busy_now()
        done = bed.lab.run(
            pair.client, *self.command(pair.address, seconds), check=False,
            timeout_s=seconds + _GRACE_S,
        )  # fmt: skip
        spent = busy_now() - before
        got = iperf(done.stdout or done.stderr)
        return {"gbit_s": got.gbit_s, "cpu_s_gb": spent / (got.bytes / 1e9)}


class Udp(Row):
    """benchmarks/udp.c: payload that arrived while one sender sent as fast as it could."""

    _GOALS: ClassVar[dict[int, Goal]] = {
        64: Goal("kernel", 1.3, 2.0),
        1400: Goal("kernel", 0.75, 1.2),
    }

    def __init__(self, size: int) -> None:
        """``size``: bytes of payload in a datagram."""
        self.key, self.size = f"udp-{size}", size
        self.title = f"UDP {size} B"
        goals = (self._GOALS[size],) if size in self._GOALS else ()
        self.metrics = (
            Metric("mbit_s", f"{self.title} delivered", "Mbit/s", goals=goals),
            Metric("kpps", f"{self.title} delivered", "1000/s"),
            Metric("offered_kpps", f"{self.title} offered", "1000/s", compared=False),
            Metric("loss_percent", f"{self.title} lost", "%", True, compared=False),
        )

    def command(self, address: str, seconds: int) -> list[str]:
        """Give the sender's command line, the program by its name."""
        return ["udp", "send", address, str(UDP_PORT), str(self.size), str(seconds)]

    def run(self, bed: Bed, seconds: int, udp: Path) -> dict[str, float]:
        """See ``Row.run``."""
        pair = bed.pairs[self.pair]
        most_s = seconds + 8
        receiver = bed.start(pair.server, str(udp), "recv", str(UDP_PORT), str(most_s))
        bed.wait_udp(pair.server, UDP_PORT)
        _, *arguments = self.command(pair.address, seconds)
        sent = blast(
            bed.lab.run(pair.client, str(udp), *arguments, timeout_s=seconds + _GRACE_S).stdout
        )
        got = blast(receiver.result(most_s + _GRACE_S))
        return {
            "mbit_s": got.bytes * 8 / got.seconds / 1e6,
            "kpps": got.packets / got.seconds / 1e3,
            "offered_kpps": sent.packets / sent.seconds / 1e3,
            "loss_percent": max(0.0, 100 * (1 - got.packets / sent.packets)),
        }


class RoundTrips(Row):
    """sockperf ping-pong over TCP, idle or beside bulk flows between the same pods.

    Left to the scheduler, both ends may share a core, where the kernel's own path is one function
    call chain and takes a sixth of the time it takes between two cores. Pinned, the client has the
    first core and the server the last, as two machines would.
    """

    needs = ("sockperf", "iperf3")

    def __init__(self, load: int = 0, pinned: bool = False) -> None:
        """``load``: how many bulk flows run meanwhile; ``pinned``: see the class."""
        self.load, self.pinned = load, pinned
        self.key = "rr" + ("-load" if load else "") + ("-pinned" if pinned else "")
        self.title = f"TCP round trip{f' beside {load} bulk flows' if load else ''}"
        self.title += ", ends on two cores" if pinned else ""
        goals = ((), ()) if load else ((Goal("kernel", 1.5, 1.1),), (Goal("kernel", 2.0, 1.2),))
        self.metrics = (
            Metric("p50_us", f"{self.title}, p50", "us", True, goals[0]),
            Metric("p99_us", f"{self.title}, p99", "us", True, goals[1]),
        )
        if load:
            self.metrics += (Metric("load_gbit_s", f"{self.title}: what those moved", "Gbit/s"),)

    def command(self, address: str, seconds: int) -> list[str]:
        """Give sockperf's command line."""
        port = RR_PINNED_PORT if self.pinned else RR_PORT
        where = ["--tcp", "-i", address, "-p", str(port)]
        size = ["--msg-size", str(RR_BYTES), "--full-rtt"]
        place = ["taskset", "-c", "0"] if self.pinned else []
        return [*place, "sockperf", "ping-pong", *where, "-t", str(seconds), *size]

    def run(self, bed: Bed, seconds: int, udp: Path) -> dict[str, float]:  # noqa: ARG002
        """See ``Row.run``."""
        pair = bed.pairs[self.pair]
        bulk = None
        if self.load:
            flags = ["-t", str(seconds + 1), "-P", str(self.load), "-J"]
            bulk = bed.start(
                pair.client, "iperf3", "-c", pair.address, "-p", str(LOAD_PORT), *flags
            )
            time.sleep(0.3)  # past the connects; sockperf warms up for 0.4 s itself
        done = bed.lab.run(
            pair.client, *self.command(pair.address, seconds), check=False,
            timeout_s=seconds + _GRACE_S,
        )  # fmt: skip
        if bulk is None:
            return _percentiles(done.stdout)
        moved = iperf(bulk.result(seconds + _GRACE_S))
        return {**_percentiles(done.stdout), "load_gbit_s": moved.gbit_s}


def _percentiles(text: str) -> dict[str, float]:
    got = sockperf(text)
    return {"p50_us": got["p50"], "p99_us": got["p99"]}


class Connections(Row):
    """wrk, one request a connection, through a service address whose backend is the other pod."""

    key = "vip"
    title = "new connections through a service address"
    needs = ("wrk", "nginx", "nft")
    service = True
    metrics = (Metric("per_s", title, "1/s", goals=(Goal("kernel", 0.6, 1.0),)),)

    def command(self, address: str, seconds: int) -> list[str]:
        """Give wrk's command line."""
        clients = ["-t", "1", "-c", str(WRK_CONNECTIONS), "-d", str(seconds), "--timeout", "5"]
        return ["wrk", *clients, "-H", "Connection: close", f"http://{address}/"]

    def run(self, bed: Bed, seconds: int, udp: Path) -> dict[str, float]:  # noqa: ARG002
        """See ``Row.run``."""
        with bed.service() as address:
            done = bed.lab.run(
                bed.pairs[self.pair].client, *self.command(address, seconds), check=False,
                timeout_s=seconds + _GRACE_S,
            )  # fmt: skip
        if done.returncode != 0:
            raise ParseError(f"wrk exited {done.returncode}: {done.stderr.strip()[-200:]}")
        return {"per_s": wrk(done.stdout)}


ROWS: dict[str, Row] = {
    row.key: row
    for row in (
        *(TcpBulk(flows, back=back) for flows in (1, 4, 16) for back in (False, True)),
        TcpBulk(1, "local"),
        TcpBulk(4, "local"),
        Udp(64),
        Udp(1400),
        RoundTrips(),
        RoundTrips(pinned=True),
        RoundTrips(LOAD_FLOWS),
        Connections(),
    )
}
QUICK_ROWS = (
    "tcp-1", "tcp-4", "tcp-4-back", "same-node-tcp-1", "udp-64", "udp-1400", "rr", "rr-pinned",
    "rr-load", "vip",
)  # fmt: skip
