"""benchmarks/restart.py: a small run measures what it says it does, and its limits are kept."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.denied import Denied, rules
from benchmarks.load import Load
from benchmarks.restart import verdict
from fwd.control.lab import Lab
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
KEPT = {
    "gap_ms_restart": [100.0, 120.0, 900.0], "gap_ms_kill": [200.0], "lost": [0, 0],
    "lost_restart": [0, 0, 0], "lost_kill": [0], "reset": 0, "missing_flows": 0,
    "denied_arrived": {"datagrams": 0, "syns": 0}, "complaints": [], "whole": True,
    "bulk_broken": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("figure", "value", "name"),
    [
        ("gap_ms_restart", [100.0, 201.0, 900.0], "median gap, restart"),
        ("gap_ms_kill", [201.0], "median gap, kill"),
        ("lost", [0, 1], "datagrams lost, all in all"),
        ("lost_restart", [0, 0, 1], "datagrams lost, restart"),
        ("lost_kill", [1], "datagrams lost, kill"),
        ("reset", 1, "connections reset"),
        ("missing_flows", 1, "connections not made"),
        ("denied_arrived", {"datagrams": 0, "syns": 1}, "denied packets that arrived"),
        ("complaints", ["Traceback"], "complaints in the logs"),
        ("whole", False, "download whole"),
        ("bulk_broken", "reset by peer", "bulk flow whole"),
    ],
)
def test_each_missed_limit_is_named(figure: str, value: object, name: str) -> None:
    """One thing wrong misses one limit; a single long gap among short ones misses none."""
    assert all(row.kept for row in verdict(KEPT, gap_ms=200))
    rows = verdict({**KEPT, figure: value}, gap_ms=200)
    assert [row.name for row in rows if not row.kept] == [name]


def run_small(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One restart and one kill; iperf3 leaves the machine to its neighbours."""
    command = [sys.executable, "benchmarks/restart.py", "--rounds", "1", "--rate", "500"]
    command += ["--flows", "5", "--pause", "1.5", "--bulk", "50", "--out", str(out), *options]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.netns
def test_restart_benchmark_runs_small(tmp_path: Path) -> None:
    """Nothing is lost, reset, damaged or delivered against policy, and there was a gap."""
    out = tmp_path / "restart.jsonl"
    done = run_small(out, "--gap-ms", "2000")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (row["opened"], row["reset"], row["whole"]) == (5, 0, True)
    assert row["sent"] > 500
    assert row["lost"] == [0, 0]
    assert row["denied_sent"] > 500
    assert row["denied_arrived"] == {"datagrams": 0, "syns": 0}
    assert row["dropped"]["node1 Policy denied by denylist"] > 0
    assert row["bulk_mbit_s"] > 10
    assert row["retransmits"] >= row["bulk_retransmits"]
    assert row["complaints"] == []
    for kind in ("restart", "kill"):
        assert len(row[f"gap_ms_{kind}"]) == len(row[f"retransmits_{kind}"]) == 1
        assert 5 < row[f"gap_ms_{kind}"][0] < 2000
    assert "segments sent again" in done.stdout


@pytest.mark.netns
def test_missed_limit_is_the_exit_status(tmp_path: Path) -> None:
    """No gap is as short as half a millisecond: 1, and the result is kept all the same."""
    out = tmp_path / "restart.jsonl"
    done = run_small(out, "--gap-ms", "0.5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MISSED" in done.stdout
    assert len(out.read_text().splitlines()) == 1


@pytest.fixture(params=[[], rules()], ids=["nothing denied", "denied"])
def policed(request: pytest.FixtureRequest) -> Iterator[tuple[Net, list[dict[str, Any]]]]:
    """Two nodes, and node1's policy."""
    files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
    files[0]["policy"] = request.param
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        yield net, request.param


@pytest.mark.netns
def test_what_policy_lets_pass_is_counted(policed: tuple[Net, list[dict[str, Any]]]) -> None:
    """Without rules datagrams and SYNs arrive and are counted; with them nothing is."""
    net, policy = policed
    load = Load(net, rate=200, flows=2, size=1 << 20, speed=1 << 20)
    denied = Denied(net)
    time.sleep(1)
    result = denied.finish()
    load.finish()
    assert result["denied_sent"] > 500
    if policy:
        assert result["denied_arrived"] == {"datagrams": 0, "syns": 0}
    else:
        assert min(result["denied_arrived"].values()) > 50


@pytest.mark.netns
def test_pod_that_counts_nothing_proves_nothing(policed: tuple[Net, list[dict[str, Any]]]) -> None:
    """Zero arrivals are believed only beside allowed ones."""
    denied = Denied(policed[0])
    with pytest.raises(RuntimeError, match="not even allowed ones"):
        denied.finish()
