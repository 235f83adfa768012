"""benchmarks/report.py and plot.py: tables, verdicts, the whole page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import merged, report
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
    assert "- stage pods: no figures" in text
    assert "- bed ovs: no row" in text
    assert "- bed bridge: no row" in text
    assert "- bed kernel: no figures of tcp-1-back, tcp-4, " in text
    assert "- plot of costs: resident memory, idle (MB) over pods on the node" in text
    assert "Nothing: every row" not in text


def test_page_of_two_runs_names_both_and_shows_the_later_figure() -> None:
    """Stages may be run one by one; what was measured again replaces what it was."""
    again = {**line("tcp-1", "gbit_s", "kernel", [20.0, 21.0, 22.0]), "commit": "def"}
    text = report.page([*LINES[:3], again], [])
    assert "commits abc (2026-11-30), def (2026-11-30)" in text
    assert "| abc |" in text
    assert "| def |" in text
    assert "21 (20 to 22)" in text
    assert "10 (8 to 12)" not in text


def run_of(made: Any, at: str, commit: str) -> Any:
    """The line as another run's."""
    return {**made, "at": at, "commit": commit}


def test_newest_figure_wins_in_every_table() -> None:
    """A full table that held a few entries fewer is still the same figure."""
    old = run_of(line("rr-dump", "p99_us", "busy", [40.0], quiet=[10.0]), "2026-11-01T10", "abc")
    new = run_of(line("rr-dump", "p99_us", "busy", [20.0], quiet=[10.0]), "2026-11-02T10", "def")
    text = report.page([{**old, "title": "1,000 entries"}, {**new, "title": "999 entries"}], [])
    assert "**missed**" not in text
    assert "| 999 entries, Gbit/s | 20 (n=1) | 2 (n=1) | <= 3, aim 1.5: **met** |" in text
    assert "Figures of commit def (2026-11-02)." in text
    assert "abc" not in text
    policy = [
        {"row": "policy", "metric": "policy-verdict", "title": title, "unit": "ns", "n": 1,
         "min": 1, "median": 1, "max": 1}
        for title in ("verdict, alone", "verdict, batched")
    ]  # fmt: skip
    assert merged.newest(policy) == policy


def test_remarks_of_one_run_do_not_speak_for_all() -> None:
    """What a later run measured is not missing, what one run was not asked for may be there."""
    asked = remark("left-out", "stages not asked for: dump, pods, core, policy")
    gone = run_of(remark("missing", "not installed: fastd", bed="fastd"), "2026-11-01T10", "abc")
    fastd = run_of(line("tcp-1", "gbit_s", "fastd", [1.0]), "2026-11-02T10", "def")
    assert merged.newest([asked, gone, fastd]) == [fastd]
    ended = run_of(remark("left-out", "the run was ended early"), "2026-11-01T10", "abc")
    assert merged.newest([ended, fastd]) == [fastd]
    assert merged.newest([fastd, {**ended, "at": "2026-11-02T10"}])[1]["text"] == ended["text"]
    assert merged.newest([fastd, run_of(gone, "2026-11-03T10", "fed")])[1]["bed"] == "fastd"


def test_commits_of_a_table_are_those_of_its_figures() -> None:
    """Two runs, two commits, oldest first."""
    lines = [
        run_of(line("rr", "p99_us", "fwd", [1.0]), "2026-11-02T10", "def"),
        run_of(line("tcp-1", "gbit_s", "fwd", [1.0]), "2026-11-01T10", "abc"),
    ]
    assert merged.sources(lines) == "Figures of commits abc (2026-11-01), def (2026-11-02)."


def test_missed_rows_link_to_why() -> None:
    """The anchors are in docs/decisions.md; what nobody explained is said to be so."""
    missed = line("tcp-1", "gbit_s", "fwd", [5.0], kernel=[10.0])
    text = report.explained([missed, LINES[2]])
    assert "TCP bulk, 1 flow: [What limits one TCP flow](decisions.md#one-tcp-flow)" in text
    assert "TCP round trip: not explained yet" in text
    assert report.explained(LINES[:2]) == ""
    decisions = (Path(__file__).parents[2] / "docs/decisions.md").read_text()
    assert '<a id="one-tcp-flow"></a>' in decisions


def test_panels_hold_their_data_and_none_is_empty() -> None:
    """Limits enclose every spread in either scale; without figures there is no panel."""
    plot = pytest.importorskip("benchmarks.plot", reason="pip install -e .[bench]")
    told = {"table": (110.0, 120.0), "resident": (110.0, 600.0), "ipcache-load": (3e-5, 0.3),
            "ipcache-memory": (0.4, 94.0)}  # fmt: skip
    lines = [
        {"row": "core", "metric": metric, "count": count, "min": 0.9 * at, "median": at,
         "max": 1.1 * at}
        for metric, ends in told.items()
        for count, at in zip((1_000, 1_000_000), ends, strict=True)
    ]  # fmt: skip
    axes = plot.cost_figure(lines).axes
    assert [one.get_ylabel() for one in axes] == ["bytes a flow", "s", "MB"]
    assert [one.get_yscale() for one in axes] == ["log", "log", "linear"]
    for one in axes:
        assert one.lines
        low, high = one.get_ylim()
        first, last = one.get_xlim()
        for drawn in one.lines:
            assert first <= min(drawn.get_xdata()) < max(drawn.get_xdata()) <= last
            assert low <= 0.9 * min(drawn.get_ydata()) < 1.1 * max(drawn.get_ydata()) <= high
        assert high / max(max(drawn.get_ydata()) for drawn in one.lines) < 2


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
