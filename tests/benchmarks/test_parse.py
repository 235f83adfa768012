"""benchmarks/parse.py: real output of the tools, and what they print when something is wrong."""

from __future__ import annotations

import json

import pytest

from benchmarks import parse
from benchmarks.parse import Blast, Iperf, ParseError

SOCKPERF = """\
sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=7245; ReceivedMessages=7245
sockperf: \x1b[2;35m====> avg-rtt=75.895 (std-dev=47.242)\x1b[0m
sockperf: Summary: Round trip is 75.895 usec
sockperf: \x1b[2;35mTotal 7245 observations\x1b[0m; each percentile contains 72.45 observations
sockperf: ---> <MAX> observation = 2879.168
sockperf: ---> percentile 99.999 = 2879.168
sockperf: ---> percentile 99.900 =  489.856
sockperf: ---> percentile 99.000 =  154.265
sockperf: ---> percentile 90.000 =   84.497
sockperf: ---> percentile 50.000 =   72.873
sockperf: ---> <MIN> observation =    7.849
"""
WRK = """\
Running 1s test @ http://10.96.0.10/
  1 threads and 64 connections
  20044 requests in 1.00s, 2.79MB read
Requests/sec:  19996.37
Transfer/sec:      2.78MB
"""
STAT = "cpu  903782 3056 149740 1234635 3310 7 4202 245 11 0\ncpu0 372828 1791 67931 703512\n"
STATUS = "Name:\tfwd\nVmHWM:\t   95000 kB\nVmRSS:\t   90505 kB\nvoluntary_ctxt_switches:\t42\n"
STATUS += "nonvoluntary_ctxt_switches:\t7\n"


def iperf_json(**received: object) -> str:
    """What iperf3 -J prints, reduced to its end."""
    sent = {"bytes": 2_000_000_000, "bits_per_second": 16e9, "retransmits": 31}
    return json.dumps({"end": {"sum_sent": sent, "sum_received": received}})


def test_iperf_reads_the_receiver() -> None:
    """The sender's own figure has what was lost in it."""
    text = iperf_json(bytes=1_834_352_640, bits_per_second=14_645_807_774.8)
    assert parse.iperf(text) == Iperf(pytest.approx(14.6458, rel=1e-4), 1_834_352_640, 31)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"start": {}, "end": {}, "error": "unable to connect: refused"}', "refused"),
        ('{"end": {}}', "no sums"),
        ("iperf3: error - the server is busy", "no JSON"),
        ("[]", "no object"),
        (iperf_json(bytes=0, bits_per_second=0), "nothing"),
    ],
)
def test_iperf_without_result_is_an_error(text: str, said: str) -> None:
    """A run that moved nothing is not a figure of zero."""
    with pytest.raises(ParseError, match=said):
        parse.iperf(text)


def test_sockperf_reads_percentiles() -> None:
    """Colours and right alignment of the tool do not matter."""
    assert parse.sockperf(SOCKPERF) == {"p50": 72.873, "p99": 154.265, "n": 7245}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sockperf: Server is not responding",
        SOCKPERF.replace("Round trip is", "Latency is"),
        SOCKPERF.replace("percentile 99.000", "percentile 98.000"),
        SOCKPERF.replace("observations", "things"),
    ],
)
def test_sockperf_without_round_trips_is_an_error(text: str) -> None:
    """Half round trips, or none, must not be taken for round trips."""
    with pytest.raises(ParseError):
        parse.sockperf(text)


def test_wrk_reads_requests_a_second() -> None:
    """Each was one connection."""
    assert parse.wrk(WRK) == 19996.37


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        (WRK + "  Socket errors: connect 0, read 150, write 0, timeout 0\n", False),
        (WRK + "  Socket errors: connect 0, read 150, write 0, timeout 60\n", True),
        (WRK + "  Non-2xx or 3xx responses: 20044\n", True),
        (WRK.replace("20044 requests", "0 requests"), True),
        ("unable to connect to 10.96.0.10:80 Connection refused", True),
    ],
)
def test_wrk_with_many_errors_is_an_error(text: str, fails: bool) -> None:
    """Connections that fail fast would look like a high rate."""
    if not fails:
        assert parse.wrk(text) == 19996.37
        return
    with pytest.raises(ParseError):
        parse.wrk(text)


def test_blast_reads_counts() -> None:
    """What udp.c prints."""
    text = '{"packets": 411264, "bytes": 26320896, "refused": 0, "seconds": 0.499878}\n'
    assert parse.blast(text) == Blast(411264, 26320896, 0.499878)


@pytest.mark.parametrize(
    "text", ['{"packets": 0, "bytes": 0, "seconds": 0}', '{"packets": 1}', "udp: bind: in use"]
)
def test_blast_without_datagrams_is_an_error(text: str) -> None:
    """A receiver that saw nothing has no rate."""
    with pytest.raises(ParseError):
        parse.blast(text)


def test_busy_seconds_add_interrupts_and_leave_idle_out() -> None:
    """Not in it: idle, iowait, steal; guest is in user already."""
    busy = (903782 + 3056 + 149740 + 7 + 4202) / 100
    assert parse.busy_seconds(STAT, ticks_s=100) == pytest.approx(busy)
    with pytest.raises(ParseError):
        parse.busy_seconds("intr 1 2 3\n")


def test_process_status_is_read() -> None:
    """Resident now, not at its most; sleeps, not preemptions."""
    assert parse.resident_bytes(STATUS) == 90505 * 1024
    assert parse.process_switches(STATUS) == 42
    for reader in (parse.resident_bytes, parse.process_switches):
        with pytest.raises(ParseError):
            reader("Name:\tkthreadd\n")
