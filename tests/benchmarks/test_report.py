"""benchmarks/report.py and plot.py: tables, verdicts, the whole page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.lines import figure, remark
from benchmarks.rows import ROWS


def line(row: str, metric: str, bed: str, values: list[float], **others: list[float]) -> Any:
    """A line as a run makes it."""
    place = {"row": row, "metric": metric, "unit": "Gbit/s", "title": row, "bed": bed}
    made = figure(place, values, others)
    assert made is not None
    return {"at": "2026-11-30T12:00:00", "commit": "abc", "command": "python -m benchmarks", **made}


KERNEL = [10.0, 12.0, 8.0]
LINES = [
    line("tcp-1", "gbit_s", "kernel", KERNEL),
    line("tcp-1", "gbit_s", "fwd", [7.0, 7.2, 6.0], kernel=KERNEL, ovs=[1.0, 1.0, 0.5]),
    line("rr", "p50_us", "fwd", [70.0, 80.0, 75.0], kernel=[40.0, 40.0, 40.0]),
    remark("missing", "not installed: fastd", bed="fastd"),
]


@pytest.mark.parametrize(
    ("value", "lower", "said"),
    [
        (0.9, False, "aim met"), (0.85, False, "aim met"), (0.7, False, "met"),
        (0.59, False, "missed"), (1.0, True, "missed"), (0.6, True, "aim met"),
    ],
)  # fmt: skip
def test_verdict_tells_must_from_aim(value: float, lower: bool, said: str) -> None:
    """Which side is good depends on the figure."""
    must, aim = (0.8, 0.7) if lower else (0.60, 0.85)
    assert report.verdict(value, must, aim, lower) == said


def test_cells_show_the_spread_or_say_that_there_is_none() -> None:
    """A single run is marked as one."""
    assert report.cell(line("a", "b", "c", [1.0, 2.0, 4.0])) == "2 (1 to 4)"
    assert report.cell(line("a", "b", "c", [12345.6])) == "12,346 (n=1)"
    assert report.cell(None) == ""


def test_rows_table_has_figures_ratios_and_verdicts() -> None:
    """The line of fwd ends with its ratio to each bed a goal names."""
    text = report.rows_table(LINES)
    bulk = next(row for row in text.splitlines() if row.startswith("| TCP bulk, 1 flow,"))
    cells = [part.strip() for part in bulk.strip("|").split("|")]
    assert cells[1:3] == ["10 (8 to 12)", "7 (6 to 7.2)"]
    assert cells[3] == "0.7 (0.6 to 0.75) to kernel; 7.2 (7 to 12) to ovs"
    assert cells[4] == ">= 0.6, aim 0.85: **met**; >= 6, aim 10: **met**"
    trips = next(row for row in text.splitlines() if "p50" in row)
    assert "<= 1.5, aim 1.1: **missed**" in trips


def test_page_says_what_is_missing() -> None:
    """A bed that this machine cannot have is named with the reason."""
    text = report.page(LINES, [])
    assert "- missing, fastd: not installed: fastd" in text
    assert "![" not in text
    assert "Nothing: every row" in report.page(LINES[:2], [])


def test_page_of_two_runs_names_both_and_shows_the_later_figure() -> None:
    """Stages may be run one by one; what was measured again replaces what it was."""
    again = {**line("tcp-1", "gbit_s", "kernel", [20.0, 21.0, 22.0]), "commit": "def"}
    text = report.page([*LINES[:3], again], [])
    assert "| abc |" in text
    assert "| def |" in text
    assert "21 (20 to 22)" in text
    assert "10 (8 to 12)" not in text


def test_core_table_judges_goals() -> None:
    """Goals of the C library stand in their lines."""
    place = {"row": "core", "title": "new flows", "unit": "M/s", "of": "flows", "count": 1_000_000}
    goal = {"side": ">=", "must": 2, "aim": 8}
    text = report.core_table([{**place, "n": 1, "min": 3, "median": 3, "max": 3, "goal": goal}])
    assert "| new flows | 1,000,000 flows | 3 (n=1) M/s | >= 2, aim 8: **met** |" in text


def test_idle_table_has_a_line_a_number_of_pods() -> None:
    """Columns are the figures, and the goal is judged beneath."""
    common = {"row": "pods", "unit": "%", "metric": "cpu_percent", "title": "50 pods: CPU", "n": 1}
    goal = {"side": "<=", "must": 0.5, "aim": 0.1}
    text = report.pods_table([
        {**common, "pods": 50, "min": 0.3, "median": 0.3, "max": 0.3, "goal": goal},
        {**common, "pods": 1, "min": 0.1, "median": 0.1, "max": 0.1},
    ])  # fmt: skip
    assert text.index("| 1 | 0.1 (n=1) |") < text.index("| 50 | 0.3 (n=1) |")
    assert text.endswith("50 pods: CPU: <= 0.5, aim 0.1: **met**\n")


def test_page_with_plots_is_written(tmp_path: Path) -> None:
    """Both plots are PNGs and the page shows them."""
    pytest.importorskip("matplotlib", reason="pip install -e .[bench]")
    common = {"row": "core", "metric": "established", "title": "packet", "unit": "ns", "n": 3}
    grows = [
        {**common, "of": "flows", "count": 10**n, "min": n, "median": n + 1.0, "max": n + 2}
        for n in (3, 5, 6)
    ]
    written = report.write(tmp_path, [*LINES, *grows])
    assert [path.name for path in written] == [report.PAGE, report.BARS, report.COST]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in written[1:])
    text = (tmp_path / report.PAGE).read_text()
    assert f"({report.BARS})" in text
    assert f"({report.COST})" in text


def test_plots_take_what_rows_are_about(tmp_path: Path) -> None:
    """Bars are ratios of a row's first figure and of those with goals; nothing, no plot."""
    plot = pytest.importorskip("benchmarks.plot", reason="pip install -e .[bench]")
    titles = [title for title, _ in plot.bars_of(LINES)]
    assert titles == [ROWS["tcp-1"].title, "TCP round trip, p50 (less is better)"]
    assert plot.bars_of(LINES)[0][1]["fwd"]["median"] == 0.7
    assert not plot.bars([], tmp_path / "none.png")
    assert not plot.cost([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
