"""`python -m benchmarks`: everything, or what was asked for; JSON lines, a table and two plots."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import core, full, pods
from benchmarks.beds import BEDS
from benchmarks.beds.bed import PREFIX, not_installed
from benchmarks.lines import ROOT, context, remark, save
from benchmarks.report import write
from benchmarks.rounds import Plan, Samples
from benchmarks.rows import QUICK_ROWS, ROWS
from fwd.control.lab import Lab, LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.beds.bed import Bed
    from benchmarks.rows import Row

STAGES = ("rows", "dump", "pods", "core", "policy")
COMPARED_ONCE = frozenset({"fwd-plain", "ovs", "fastd"})
"""Beds a quick run measures in its first round only, and there on COMPARED_ROWS."""
COMPARED_ROWS = frozenset({"tcp-1", "udp-64", "rr"})
QUICK_ROUNDS_S = 75.0
"""A quick run begins no round of rows after this many seconds."""
FLOWS_COST = (1_000, 10_000, 100_000, 1_000_000, 4_000_000)
PREFIXES_COST = (1_000, 10_000, 100_000, 1_000_000)
PODS_COST = (1, 10, 50, 100, 200)
FULL, FULL_QUICK = 1_000_000, 300_000
"""Conntrack entries that are listed while round trips are measured."""
_BEGAN = time.monotonic()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="under three minutes, into .build/bench"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5, quick 3)")
    parser.add_argument("--seconds", type=int, help="of each run (default 5, quick 1)")
    parser.add_argument("--beds", default="", help=f"comma separated, of {','.join(BEDS)}")
    parser.add_argument("--rows", default="", help=f"comma separated, of {','.join(ROWS)}")
    parser.add_argument("--stages", default="", help=f"comma separated, of {','.join(STAGES)}")
    parser.add_argument("--results", type=Path, help="folder of the JSON lines")
    parser.add_argument("--docs", type=Path, help="folder of benchmarks.md and its plots")
    args = parser.parse_args()
    for name, known in (("beds", BEDS), ("rows", ROWS), ("stages", STAGES)):
        chosen = [word for word in getattr(args, name).split(",") if word]
        unknown = [word for word in chosen if word not in known]
        if unknown:
            parser.error(f"--{name}: no {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(args, name, chosen or list(known))
    if args.quick and args.rows == list(ROWS):
        args.rows = list(QUICK_ROWS)
    scratch = ROOT / ".build/bench"
    args.results = args.results or (scratch if args.quick else ROOT / "benchmarks/results")
    args.docs = args.docs or (scratch if args.quick else ROOT / "docs")
    args.rounds = args.rounds or (3 if args.quick else 5)
    args.seconds = args.seconds or (1 if args.quick else 5)
    return args


def tell(text: str) -> None:
    """Say how far it is, after how many seconds."""
    print(f"{time.monotonic() - _BEGAN:6.1f} {text}", flush=True)


def clean_up_after_others() -> None:
    """Take down beds whose maker was killed."""
    for directory in Lab.left(PREFIX):
        try:
            lab = Lab.load(directory)
        except LabError as error:
            tell(str(error))
            continue
        if not lab.in_use:
            tell(f"taking down what a killed run left in {directory}")
            lab.close()


def rows_stage(args: argparse.Namespace, udp: Path, lines: list[dict[str, Any]]) -> None:
    """Interleaved rounds of all rows on all beds that this machine can have.

    What was measured is in ``lines`` however it ends.
    """
    rows, samples = _possible_rows(args.rows, lines), Samples()
    beds: list[Bed] = []
    try:
        with ExitStack() as stack:
            for name in args.beds:
                bed = _built(name, stack, lines)
                if bed is not None:
                    beds.append(bed)
            samples.measure(rows, beds, _plan(args), udp, tell)
    finally:
        lines += samples.lines(rows, beds, args.seconds)
    once = {bed.name for bed in beds if args.quick} & COMPARED_ONCE
    if once:
        rows_once = ", ".join(key for key in ROWS if key in COMPARED_ROWS)
        text = f"{', '.join(sorted(once))} ran {rows_once} only, and in the first round only"
        lines.append(remark("left-out", text))
    left_out = [key for key in ROWS if key not in args.rows]
    if left_out:
        lines.append(remark("left-out", f"rows not asked for: {', '.join(left_out)}"))


def _plan(args: argparse.Namespace) -> Plan:
    if not args.quick:
        return Plan(args.rounds, args.seconds)
    until = time.monotonic() + QUICK_ROUNDS_S
    return Plan(args.rounds, args.seconds, COMPARED_ONCE, COMPARED_ROWS, until)


def _possible_rows(keys: Sequence[str], remarks: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for row in (ROWS[key] for key in keys):
        absent = not_installed(row.needs)
        if absent is None:
            rows.append(row)
        else:
            remarks.append(remark("missing", absent, row=row.key))
            tell(f"{row.key}: {absent}")
    return rows


def _built(name: str, stack: ExitStack, remarks: list[dict[str, Any]]) -> Bed | None:
    why, kind = BEDS[name].missing(), "missing"
    if why is None:
        try:
            return stack.enter_context(BEDS[name]())
        except LabError as error:
            why, kind = str(error), "failed"
    remarks.append(remark(kind, why, bed=name))
    tell(f"{name}: {why}")
    return None


def run(args: argparse.Namespace, lines: list[dict[str, Any]]) -> None:
    """Run the stages asked for; their figures go to ``lines`` as they come."""
    with tempfile.TemporaryDirectory(prefix="fwd-bench-") as directory:
        udp = core.build(Path(directory), "udp", library=False)
        if "rows" in args.stages:
            rows_stage(args, udp, lines)
        if "dump" in args.stages:
            rounds, seconds = (1, 1) if args.quick else (args.rounds, args.seconds)
            held = FULL_QUICK if args.quick else FULL
            lines += full.run(held, rounds, seconds, udp, tell)
    if "pods" in args.stages:
        counts, seconds = ((50,), 2.0) if args.quick else (PODS_COST, 10.0)
        lines += pods.run(counts, 1 if args.quick else 3, seconds, tell)
    if "core" in args.stages:
        flows, prefixes = (core.FLOWS, core.PREFIXES) if args.quick else (FLOWS_COST, PREFIXES_COST)
        lines += core.measure(flows, prefixes, 3 if args.quick else 7, tell)
    if "policy" in args.stages:
        lines += core.policy(tell)
    left_out = [stage for stage in STAGES if stage not in args.stages]
    if left_out:
        lines.append(remark("left-out", f"stages not asked for: {', '.join(left_out)}"))


def main() -> int:
    """Measure, save, report. Return the exit code: 1 something failed, 130 ended early."""
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    quoted, lines, code = context(), list[dict[str, Any]](), 0
    clean_up_after_others()
    try:
        run(args, lines)
    except (KeyboardInterrupt, SystemExit):
        lines.append(remark("left-out", "the run was ended early"))
        code = 130
    stamp = quoted["at"].replace(":", "").replace("-", "")[:15]
    results = args.results / f"{stamp}-{quoted['commit']}.jsonl"
    save(results, lines, quoted)
    for path in write(args.docs, [{**quoted, **line} for line in lines]):
        tell(f"wrote {path}")
    tell(f"wrote {results}")
    return code or int(any(line.get("remark") == "failed" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
