"""The page: tables from JSON lines, beside the plots of plot.py.

    python -m benchmarks.report FOLDER RESULTS...    make the page again from saved lines

Of several files with the same figure the last one's is shown: give them in the order of time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.beds import BEDS, REFERENCE, SAME_NODE_REFERENCE
from benchmarks.full import GOAL as DUMP_GOAL
from benchmarks.lines import load
from benchmarks.merged import missing, newest, sources
from benchmarks.rows import ROWS, Goal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["cell", "page", "table", "verdict", "write"]

PAGE, BARS, COST = "benchmarks.md", "benchmarks.png", "benchmarks-cost.png"

_FACTS = ("at", "commit", "kernel", "cpu", "tcp", "command")
"""What the page says of each run it is made from."""
_EXPLAINED = {
    "one-tcp-flow": ("What limits one TCP flow", ("tcp-1", "tcp-1-back")),
}
"""Paragraphs of docs/decisions.md, by anchor: title, and the rows whose misses they explain."""
_INTRO = """\
# Benchmarks

Made by `benchmarks/report.py` from the runs below, of each figure the newest; do not edit. `make
bench` runs everything and installs what it measures against. `make bench QUICK=1` does the same in
under three minutes, with fewer rounds, and writes to `.build/bench`.

Every bed is two nodes in network namespaces of one machine, joined by a veth with MTU 1500, a pod
on each, MTU 1450. In each round every row runs on every bed before the next row begins, the same
command everywhere; a ratio divides figures of the *same* round. Shown are medians, in brackets the
least and the most. All beds share the machine's cores with both ends of the traffic, so absolute
figures say as much about the machine as about the beds.
"""

_NOTES = """\
TCP figures are payload the receiver got (iperf3). *CPU* is what the whole machine spent during
the run, interrupts and both ends included, by payload. UDP figures count payload that arrived
while one sender sent as fast as it could, the same program on every bed; the kernel's own path
runs in the sender's time and so slows it down, a queue to a daemon does not: hence the losses.
Round trips are sockperf's, 64 bytes; left to the scheduler both ends may share a core, where the
kernel's way is one chain of calls, so there is a row with the ends on two cores as well.
Connections are wrk's, one request each, 64 at a time, through a service address: a ClusterIP of
fwd, an nftables DNAT rule on the kernel's bed.
"""


def cell(line: dict[str, Any] | None) -> str:
    """One figure with its spread."""
    if line is None:
        return ""
    if line["n"] == 1:
        return f"{number(line['median'])} (n=1)"
    return f"{number(line['median'])} ({number(line['min'])} to {number(line['max'])})"


def number(value: float) -> str:
    """Three significant digits, without an exponent where people count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def verdict(value: float, must: float, aim: float, lower_is_better: bool) -> str:
    """Where a figure stands: ``aim met``, ``met`` or ``missed``."""
    if value <= aim if lower_is_better else value >= aim:
        return "aim met"
    return "met" if (value <= must if lower_is_better else value >= must) else "missed"


def _goal_text(goal: Goal, ratio: dict[str, Any], lower: bool) -> str:
    side, state = ("<=" if lower else ">="), verdict(ratio["median"], goal.must, goal.aim, lower)
    return f"{side} {goal.must:g}, aim {goal.aim:g}: **{state}**"


def rows_table(lines: list[dict[str, Any]]) -> str:
    """The side-by-side rows: one line a metric, one column a bed."""
    found = {
        (x["row"], x["metric"], x["bed"]): x for x in lines if x.get("row") in ROWS and "n" in x
    }
    beds = [name for name in BEDS if any(key[2] == name for key in found)]
    body = []
    for row in ROWS.values():
        for metric in row.metrics:
            figures = {bed: found.get((row.key, metric.key, bed)) for bed in beds}
            if not any(figures.values()):
                continue
            title = f"{metric.title}, {metric.unit}"
            ratio, goal = _ratio_cells(figures.get("fwd"), metric.goals, metric.lower_is_better)
            body.append([title, *(cell(figures[bed]) for bed in beds), ratio, goal])
    return table(["", *(BEDS[bed].title for bed in beds), "fwd's ratio", "goal"], body)


def _ratio_cells(
    line: dict[str, Any] | None, goals: tuple[Goal, ...], lower: bool
) -> tuple[str, str]:
    """The ratio to the reference, then to whatever else a goal names."""
    told = (line or {}).get("ratio", {})
    names = [name for name in (REFERENCE, SAME_NODE_REFERENCE) if name in told]
    names += [goal.to for goal in goals if goal.to in told and goal.to not in names]
    ratio = "; ".join(f"{cell(told[name])} to {name}" for name in names)
    met = [f"{_goal_text(goal, told[goal.to], lower)}" for goal in goals if goal.to in told]
    return ratio, "; ".join(met)


def explained(lines: list[dict[str, Any]]) -> str:
    """Links to why rows are missed; a missed row that nobody has explained is named."""
    missed = [
        row.key
        for row in ROWS.values()
        if any(
            verdict(line["ratio"][goal.to]["median"], goal.must, goal.aim, metric.lower_is_better)
            == "missed"
            for metric in row.metrics
            for goal in metric.goals
            for line in lines
            if (line.get("row"), line.get("metric"), line.get("bed"))
            == (row.key, metric.key, "fwd")
            and goal.to in line.get("ratio", {})
        )
    ]
    told = []
    for anchor, (title, rows) in _EXPLAINED.items():
        here = [ROWS[key].title for key in missed if key in rows]
        missed = [key for key in missed if key not in rows]
        if here:
            told.append(f"{'; '.join(here)}: [{title}](decisions.md#{anchor})")
    told += [f"{ROWS[key].title}: not explained yet" for key in missed]
    return f"Why rows are missed: {'. '.join(told)}.\n" if told else ""


def dump_table(lines: list[dict[str, Any]]) -> str:
    """Round trips while a full conntrack table is listed."""
    body = []
    for line in (x for x in lines if x.get("row") == "rr-dump" and "n" in x):
        ratio = line.get("ratio", {}).get(DUMP_GOAL.to)
        goal = _goal_text(DUMP_GOAL, ratio, True) if ratio else ""
        body.append([f"{line['title']}, {line['unit']}", cell(line), cell(ratio), goal])
    return table(["", "fwd", "ratio to quiet", "goal"], body) if body else ""


def pods_table(lines: list[dict[str, Any]]) -> str:
    """What idle pods cost, a line a number of pods."""
    found = [line for line in lines if line.get("row") == "pods" and "n" in line]
    metrics = list(dict.fromkeys(line["metric"] for line in found))
    counts = sorted({line["pods"] for line in found})
    by = {(line["pods"], line["metric"]): line for line in found}
    header = ["pods", *(f"{m.rsplit('_', 1)[0]}, {_unit(found, m)}" for m in metrics)]
    body = [[str(count), *(cell(by.get((count, m))) for m in metrics)] for count in counts]
    if not body:
        return ""
    judged = [f"\n{x['title']}: {_met(x)}\n" for x in found if "goal" in x]
    return table(header, body) + "".join(judged)


def _met(line: dict[str, Any]) -> str:
    """Where a line with a goal of its own stands."""
    goal = line["goal"]
    state = verdict(line["median"], goal["must"], goal["aim"], goal["side"] == "<=")
    return f"{goal['side']} {goal['must']:g}, aim {goal['aim']:g}: **{state}**"


def _unit(lines: list[dict[str, Any]], metric: str) -> str:
    return next(str(line["unit"]) for line in lines if line["metric"] == metric)


def core_table(lines: list[dict[str, Any]]) -> str:
    """The C library alone."""
    body = []
    for line in (x for x in lines if x.get("row") in {"core", "policy"} and "median" in x):
        text = _met(line) if isinstance(line.get("goal"), dict) else ""
        count = f"{line['count']:,} {line['of']}" if "count" in line else ""
        body.append([line["title"], count, f"{cell(line)} {line['unit']}", text])
    return table(["", "with", "", "goal"], body) if body else ""


def remarks_list(lines: list[dict[str, Any]]) -> str:
    """What is not in the tables, and why."""
    out = [f"- {text}" for text in missing(lines)]
    for line in (x for x in lines if "remark" in x):
        where = ", ".join(str(line[key]) for key in ("row", "bed") if key in line)
        text = " ".join(str(line["text"]).split())[:300]
        out.append(f"- {line['remark']}{f', {where}' if where else ''}: {text}")
    return "\n".join(out) + "\n" if out else "Nothing: every row ran on every bed that has it.\n"


def _of(lines: list[dict[str, Any]], *rows: str) -> str:
    """From which commits the figures of these rows are, as a paragraph."""
    found = [x for x in lines if x.get("row") in rows and "median" in x]
    return f"{sources(found)}\n" if found else ""


def page(lines: list[dict[str, Any]], plots: Sequence[str]) -> str:
    """The whole page."""
    lines = newest(lines)
    runs = (x for x in lines if "median" in x)
    facts = sorted({tuple(str(line.get(key, "")) for key in _FACTS) for line in runs})
    parts = [_INTRO, table(_FACTS, facts)]
    for title, text, rows in (
        ("## Side by side", rows_table(lines), tuple(ROWS)),
        ("## While conntrack is listed", dump_table(lines), ("rr-dump",)),
        ("## Idle", pods_table(lines), ("pods",)),
        ("## The C library alone", core_table(lines), ("core", "policy")),
    ):
        if rows == tuple(ROWS):
            parts += [f"{title}\n", _of(lines, *rows), text, explained(lines), _NOTES]
            if BARS in plots:
                parts.append(f"![fwd and others, as multiples of the kernel's VXLAN]({BARS})\n")
        elif text:
            parts += [f"{title}\n", _of(lines, *rows), text]
    if COST in plots:
        parts += [
            "## What it costs as work grows\n",
            _of(lines, "core", "pods"),
            f"![cost over flows, prefixes, pods]({COST})\n",
        ]
    parts += ["## What is missing\n", remarks_list(lines)]
    return "\n".join(part for part in parts if part)


def write(folder: Path, lines: list[dict[str, Any]]) -> list[Path]:
    """Write the page and, with matplotlib, its plots; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, written = newest(lines), []
    try:
        from benchmarks import plot  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        lines = [*lines, {"remark": "missing", "text": f"plots: {error}; pip install 'fwd[bench]'"}]
    else:
        for name, draw in ((BARS, plot.bars), (COST, plot.cost)):
            if draw(lines, folder / name):
                written.append(folder / name)
    text = page(lines, [path.name for path in written])
    (folder / PAGE).write_text(text, encoding="utf-8")
    return [folder / PAGE, *written]


def main() -> int:
    """Make the page again. Return the exit code."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *files = (Path(word) for word in sys.argv[1:])
    for path in write(folder, [line for file in files for line in load(file)]):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
