"""benchmarks/restart.py: a small run measures what it says it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.netns
def test_restart_benchmark_runs_small(tmp_path: Path) -> None:
    """One restart and one kill: every figure is there, and there was a gap."""
    out = tmp_path / "restart.jsonl"
    command = [sys.executable, "benchmarks/restart.py", "--rounds", "1", "--rate", "500"]
    command += ["--flows", "5", "--pause", "1.5", "--out", str(out)]
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (row["opened"], row["reset"], row["whole"]) == (5, 0, True)
    assert row["sent"] > 500
    assert row["complaints"] == []
    assert len(row["gap_restart_ms"]) == len(row["gap_kill_ms"]) == 1
    assert 5 < row["gap_kill_ms"][0] < 10_000
    assert "datagrams lost" in done.stdout
