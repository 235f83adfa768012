"""`fwd monitor` from outside: a process that prints as it happens and ends on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.api.daemon import LabDaemon
from tests.api.frames import syn, udp
from tests.cli.invoke import fwd

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def monitor(lab: LabDaemon, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running `fwd monitor` that listens; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fwd", "monitor", "--socket", lab.socket, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"LANG": "C"},
    )  # fmt: skip
    try:
        lab.wait_listeners(1)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines it prints."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def test_monitor_prints_lines_until_interrupted(lab: LabDaemon):
    """Default types in order; Ctrl-C is a clean end."""
    with monitor(lab) as process:
        flow = lab.send(udp()).hash
        connection = "10.244.0.108:5353 -> 10.244.2.171:53 udp"
        rule = "rule: default deny: default/curl egress, none of 1 rules allows it"
        lines = read(process, 3)
        assert lines[0].startswith(f"<- endpoint 2825 flow {flow:#x} , identity 25001->unknown ")
        assert lines[1:] == [
            (
                f"Policy verdict log: flow {flow:#x} local EP ID 2825, remote ID 25002, proto 17, "
                f"egress, action deny, auth: disabled, match none, {connection}, {rule}"
            ),
            (
                f"xx drop (Policy denied) flow {flow:#x} to endpoint 0, , identity 25001->25002: "
                f"{connection}, {rule}"
            ),
        ]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.communicate() == ("", "")


def test_monitor_json_and_types(lab: LabDaemon):
    """-t narrows, repeats and takes several, -o json prints one object a line."""
    with monitor(lab, "-t", "drop,step", "-t", "drop", "-o", "json") as process:
        lab.send(syn())
        records = [json.loads(line) for line in read(process, 11)]
        assert {one["type"] for one in records} == {"step"}
        assert [one["row"] for one in records] == [0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 8]
        assert records[5]["rule"]["line"] == 22
        assert records[5]["walk"].startswith(
            " 4  stage_policy(EGRESS)     endpoint 2825, identity 25002, TCP: allow by entry "
            "L3-L4, rule 1: allow default/curl egress to identity 25002 proto tcp port 80 ("
        )


def test_monitor_says_when_the_daemon_ends(lab: LabDaemon):
    """A stream that the daemon ends is a failure of the command, with its reason."""
    with monitor(lab) as process:
        lab.call(lab.agent.monitor.close)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (1, "fwd: the daemon has ended the stream\n")


@pytest.mark.parametrize("name", ["frob", "", "drop,frob", "drop,"])
def test_monitor_of_an_unknown_type_is_usage(name: str):
    """A typo is told before anything is asked."""
    ran = fwd("monitor", "-t", name)
    assert ran.code == 2
    assert "'drop', 'trace', 'verdict', 'policy-verdict', 'step'" in ran.err
