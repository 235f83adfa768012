"""What the C library costs alone: build core.c and tables.c, run them, print the figures.

    python -m benchmarks.core [--flows 1000000 ...] [--prefixes 1000000 ...] [--rounds 7]
                              [--out results.jsonl]

One JSON line a figure goes to --out, with commit, machine and command, so that a number can be
quoted with its line. There is no pass or fail on time: the goal is printed beside the figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.lines import context, remark, save
from benchmarks.stats import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["build", "goal_of", "measure", "policy"]

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O3", "-fno-plt", "-fvisibility=hidden", "-flto=auto")
FLOWS = (1_000, 100_000, 1_000_000)
PREFIXES = (10_000, 100_000, 1_000_000)
TITLES = {
    "established": "established packet through from-container, batched",
    "new": "first packet of a flow",
    "new-rate": "new flows",
    "table": "conntrack bytes a flow, table full, index included",
    "resident": "resident bytes a flow",
    "ct-lookup-single": "conntrack lookup, one by one",
    "ct-lookup-batched": "conntrack lookup, in batches of 32",
    "ipcache-load": "ipcache: writing all prefixes",
    "ipcache-memory": "ipcache: resident memory",
    "ipcache-lookup": "ipcache: longest-prefix lookup",
}
GOALS: dict[tuple[str, int], tuple[str, float, float]] = {
    ("established", 1_000_000): ("<=", 150, 60),
    ("new-rate", 1_000_000): (">=", 2, 8),
    ("table", 1_000_000): ("<=", 160, 96),
    ("ipcache-load", 1_000_000): ("<=", 3, 0.5),
    ("ipcache-memory", 1_000_000): ("<=", 96, 24),
    ("ipcache-lookup", 1_000_000): ("<=", 30, 10),
}
"""(figure, count) to which side is good, what must be, what is aimed at; units of the figure."""


def build(directory: Path, name: str, library: bool = True) -> Path:
    """Compile benchmarks/NAME.c, with the library as the release has it; return the program.

    The library is compiled once a ``directory``.
    """
    compiler, program = os.environ.get("CC", "cc"), directory / name
    flags = [*FLAGS, f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'benchmarks'}"]
    unity = directory / "unity.o"
    if library and not unity.exists():
        source = str(ROOT / "csrc/unity.c")
        subprocess.run([compiler, *flags, "-c", "-o", str(unity), source], check=True)
    sources = [str(ROOT / f"benchmarks/{name}.c"), *([str(unity)] if library else [])]
    subprocess.run([compiler, *flags, "-o", str(program), *sources], check=True)
    return program


def goal_of(what: str, count: int) -> dict[str, Any] | None:
    """What a figure is to be, None where nothing is asked."""
    goal = GOALS.get((what, count))
    return None if goal is None else dict(zip(("side", "must", "aim"), goal, strict=True))


def measure(
    flows: Sequence[int], prefixes: Sequence[int], rounds: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Run everything; returns JSON lines without their context."""
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fwd-bench-core-") as directory:
        core, tables = build(Path(directory), "core"), build(Path(directory), "tables")
        runs = [[str(core), str(count)] for count in flows]
        runs += [[str(tables), "ct", str(count)] for count in flows]
        runs += [[str(tables), "ipcache", str(count)] for count in prefixes]
        for command in runs:
            done = subprocess.run(
                [*command, str(rounds)], capture_output=True, text=True, timeout=900, check=False
            )
            name = " ".join([Path(command[0]).name, *command[1:]])
            if done.returncode != 0:
                lines.append(remark("failed", f"{name}: {done.stderr.strip()}", row="core"))
                tell(f"core: {name} failed: {done.stderr.strip()}")
                continue
            for row in _rows(done.stdout):
                lines.append({**row, "tool": f"{name} {rounds}"})
                tell(f"core: {sentence(row)}")
    return lines


def _rows(text: str) -> list[dict[str, Any]]:
    """Lines of one program as lines of ours; new flows a second follow from their cost."""
    rows = []
    for line in text.splitlines():
        got = json.loads(line)
        what = got.pop("what")
        of = "flows" if "flows" in got else "prefixes"
        place = {"row": "core", "metric": what, "title": TITLES[what], "of": of}
        row = {**place, "count": got.pop(of), **got}
        rows.append(row)
        if what == "new":
            rate = {name: rounded(1e3 / row[of_ns]) for name, of_ns in
                    (("min", "max"), ("median", "median"), ("max", "min"))}  # fmt: skip
            named = {"metric": "new-rate", "title": TITLES["new-rate"], "unit": "M/s"}
            rows.append({**row, **named, **rate})
    for row in rows:
        goal = goal_of(row["metric"], row["count"])
        if goal is not None:
            row["goal"] = goal
    return rows


def policy(tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run benchmarks/policy.py; returns its figures as our lines."""
    command = [sys.executable, "benchmarks/policy.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        tell(f"policy: failed: {done.stderr.strip()[-400:]}")
        return [remark("failed", f"policy.py: {done.stderr.strip()[-400:]}", row="policy")]
    lines = []
    for text in done.stdout.splitlines():
        tell(f"policy: {text}")
        lines.append(policy_line(json.loads(text)))
    return lines


def policy_line(row: dict[str, Any]) -> dict[str, Any]:
    """One object of policy.py as a line: a verdict has a spread, reading and compiling one figure.

    An object without a figure becomes a remark.
    """
    place = {"row": "policy", "metric": row["benchmark"], "tool": "benchmarks/policy.py", **row}
    words = [row["benchmark"].replace("-", " "), row.get("what", ""), row.get("keys", "")]
    words += [f"{row[key]:,} {key}" for key in ("rules", "identities", "entries") if key in row]
    place["title"] = ", ".join(word for word in words if word)
    if "median" in row:
        return place
    spent = next((row[key] for key in row if key.endswith("_ms") and key != "goal_ms"), None)
    if spent is None:
        return remark("failed", f"policy.py printed no figure: {json.dumps(row)}", row="policy")
    return {**place, "unit": "ms", "n": 1, "min": spent, "median": spent, "max": spent}


def sentence(row: dict[str, Any]) -> str:
    """Return one figure for people."""
    text = (
        f"{row['title']}, {row['count']} {row['of']}: {row['median']:g} {row['unit']}, "
        f"median of {row['n']} ({row['min']:g} to {row['max']:g})"
    )
    goal = row.get("goal")
    return f"{text}, goal {goal['side']} {goal['must']:g}" if goal else text


def main() -> int:
    """Build, run, print. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, nargs="+", default=list(FLOWS))
    parser.add_argument("--prefixes", type=int, nargs="*", default=list(PREFIXES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write JSON lines to this file")
    args = parser.parse_args()
    lines = measure(args.flows, args.prefixes, args.rounds, print)
    if args.out:
        save(args.out, lines, context("benchmarks.core"))
    return int(any("remark" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
