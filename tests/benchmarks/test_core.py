"""benchmarks/core.py: the benchmark builds against today's abi.h and its packets take the path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_core_benchmark_runs_small(tmp_path: Path) -> None:
    """A thousand flows, one round: every figure is there and says how it was taken."""
    out = tmp_path / "core.jsonl"
    command = [sys.executable, "benchmarks/core.py", "--flows", "1000", "--rounds", "1"]
    subprocess.run([*command, "--out", out], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {"new", "memory", "established"} <= {row["what"] for row in rows}
    assert all(row["commit"] and row["command"] for row in rows)
