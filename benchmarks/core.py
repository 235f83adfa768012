"""What one packet costs in the C library alone: build benchmarks/core.c, run it, print the figures.

    python benchmarks/core.py [--flows 1000000] [--rounds 7] [--out results.jsonl]

One JSON line a figure goes to --out, with commit, machine and command, so that a number can be
quoted with its line. There is no pass or fail on time: the goal is printed beside the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-fno-plt", "-fvisibility=hidden")
GOAL_NS = 400.0
"""Nanoseconds an established packet may take with a million flows."""


def build(directory: Path) -> Path:
    """Compile library and benchmark as the release is compiled; return the program."""
    program = directory / "core"
    sources = [str(ROOT / "csrc/unity.c"), str(ROOT / "benchmarks/core.c")]
    compiler = os.environ.get("CC", "cc")
    command = [compiler, *FLAGS, f"-I{ROOT / 'csrc'}", "-o", str(program), *sources]
    subprocess.run(command, check=True)
    return program


def machine() -> dict[str, Any]:
    """Return what a figure must be quoted with."""
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "commit": commit or "none",
        "machine": f"{models[0] if models else platform.machine()} x{os.cpu_count()}",
        "command": " ".join(["core.py", *sys.argv[1:]]),
    }


def sentence(row: dict[str, Any]) -> str:
    """Return one figure for people."""
    if row["what"] == "memory":
        return (
            f"memory per flow: {row['table']} bytes of table when full, "
            f"{row['resident']} bytes resident with {row['flows']} flows"
        )
    if row["what"] == "new":
        return f"first packet of a flow: {row['median']} ns ({row['flows']} flows)"
    text = (
        f"established packet through from-container, {row['flows']} flows: "
        f"{row['median']} ns median of {row['n']} rounds ({row['min']} to {row['max']})"
    )
    return f"{text}, goal <= {GOAL_NS:.0f} ns" if row["flows"] >= 1_000_000 else text


def main() -> int:
    """Build, run, print. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="append JSON lines to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fwd-core-") as directory:
        program = build(Path(directory))
        command = [str(program), str(args.flows), str(args.rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        print(sentence(row))
    if args.out:
        context = machine()
        with args.out.open("a") as out:
            out.writelines(json.dumps({"bench": "core", **context, **row}) + "\n" for row in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
