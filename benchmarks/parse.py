"""Readers of what the tools print. Anything unexpected is a ``ParseError`` with the text in it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Blast",
    "Iperf",
    "ParseError",
    "blast",
    "busy_seconds",
    "iperf",
    "process_switches",
    "resident_bytes",
    "sockperf",
    "wrk",
]

_SHOWN = 400
"""Characters of a tool's output an error quotes."""


class ParseError(Exception):
    """A tool printed something else than a result."""


@dataclass(frozen=True, slots=True)
class Iperf:
    """One run of iperf3, as its receiver saw it."""

    gbit_s: float
    bytes: int
    retransmits: int


@dataclass(frozen=True, slots=True)
class Blast:
    """One run of benchmarks/udp.c: what was sent or received."""

    packets: int
    bytes: int
    seconds: float


def _quote(text: str) -> str:
    return repr(text.strip()[-_SHOWN:])


def _json(what: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ParseError(f"{what} printed no JSON: {_quote(text)}") from error
    if not isinstance(value, dict):
        raise ParseError(f"{what} printed no object: {_quote(text)}")
    return value


def iperf(text: str) -> Iperf:
    """Read ``iperf3 -J``: the receiver's sum over all flows.

    Raises:
        ParseError: iperf3 failed, or moved nothing.
    """
    value = _json("iperf3", text)
    if "error" in value:
        raise ParseError(f"iperf3: {value['error']}")
    try:
        received, sent = value["end"]["sum_received"], value["end"]["sum_sent"]
        rate, amount = float(received["bits_per_second"]), int(received["bytes"])
        retransmits = int(sent.get("retransmits", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise ParseError(f"iperf3 printed no sums: {_quote(text)}") from error
    if amount <= 0:
        raise ParseError("iperf3 moved nothing")
    return Iperf(rate / 1e9, amount, retransmits)


def sockperf(text: str) -> dict[str, float]:
    """Read percentiles of round trips in microseconds: keys ``p50``, ``p99``, ``n``.

    Raises:
        ParseError: there are none, or the run measured half round trips.
    """
    if "Round trip is" not in text:
        raise ParseError(f"sockperf measured no round trips: {_quote(text)}")
    found = dict(re.findall(r"percentile (\d+\.\d+) =\s+(\d+\.\d+)", text))
    count = re.search(r"Total (\d+) observations", text)
    try:
        return {"p50": float(found["50.000"]), "p99": float(found["99.000"]), "n": int(count[1])}  # type: ignore[index]
    except (KeyError, TypeError) as error:
        raise ParseError(f"sockperf printed no percentiles: {_quote(text)}") from error


def wrk(text: str) -> float:
    """Read requests a second; each was a connection of its own.

    Raises:
        ParseError: none succeeded, or more than one in a hundred failed.
    """
    total = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+(\d+(?:\.\d+)?)", text)
    if total is None or rate is None or int(total[1]) == 0:
        raise ParseError(f"wrk finished no request: {_quote(text)}")
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    failed = sum(int(count) for count in errors.groups()) if errors else 0
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed += int(other[1]) if other else 0
    if failed * 100 > int(total[1]):
        raise ParseError(f"wrk: {failed} errors beside {total[1]} requests")
    return float(rate[1])


def blast(text: str) -> Blast:
    """Read what ``udp send`` or ``udp recv`` printed.

    Raises:
        ParseError: it is not that, or no datagram was seen.
    """
    value = _json("udp", text)
    try:
        got = Blast(int(value["packets"]), int(value["bytes"]), float(value["seconds"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ParseError(f"udp printed no counts: {_quote(text)}") from error
    if got.packets == 0 or got.seconds <= 0:
        raise ParseError("udp: not one datagram")
    return got


def busy_seconds(proc_stat: str, ticks_s: int = os.sysconf("SC_CLK_TCK")) -> float:
    """Seconds all CPUs were busy since boot, interrupts and softirqs included (/proc/stat).

    Raises:
        ParseError: the text is not /proc/stat.
    """
    fields = proc_stat.split("\n", 1)[0].split()
    if len(fields) < 8 or fields[0] != "cpu":
        raise ParseError(f"/proc/stat begins with {_quote(fields[0] if fields else '')}")
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[1:8])
    return (user + nice + system + irq + softirq) / ticks_s


def resident_bytes(proc_status: str) -> int:
    """Resident memory of a process (/proc/PID/status).

    Raises:
        ParseError: the text is not that of a live process.
    """
    found = re.search(r"^VmRSS:\s+(\d+) kB$", proc_status, re.MULTILINE)
    if found is None:
        raise ParseError(f"no VmRSS in {_quote(proc_status)}")
    return int(found[1]) * 1024


def process_switches(proc_status: str) -> int:
    """Times a thread has gone to sleep by itself, which is how often it was woken.

    Raises:
        ParseError: the text is not that of a live thread.
    """
    found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)$", proc_status, re.MULTILINE)
    if found is None:
        raise ParseError(f"no voluntary_ctxt_switches in {_quote(proc_status)}")
    return int(found[1])
