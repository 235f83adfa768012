"""benchmarks/rounds.py: interleaving, holes of failed runs, ratios of the same round."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.beds import BEDS
from benchmarks.beds.bed import Bed, Pair
from benchmarks.parse import ParseError
from benchmarks.rounds import Plan, Samples, rotated
from benchmarks.rows import ROWS, Metric, Row


class Still(Bed):
    """A bed that is never built."""

    served = 0

    def build(self) -> None:
        """Make nothing."""

    def serve(self) -> None:
        """Count."""
        self.served += 1


class Kernel(Still):
    """Stands for the reference."""

    name, title = "kernel", "kernel"


class Ours(Still):
    """Stands for fwd."""

    name, title = "fwd", "fwd"


class Other(Still):
    """Stands for a bed without the row's pair."""

    name, title = "ovs", "ovs"
    pairs: ClassVar[dict[str, Pair]] = {}


class Scripted(Row):
    """A row whose figures are written down."""

    key, title = "scripted", "scripted"
    metrics = (Metric("x", "scripted", "1/s"),)

    def __init__(self, script: dict[str, list[float | None]]) -> None:
        """``script``: figures by bed; None fails."""
        self.script, self.order = {name: list(values) for name, values in script.items()}, []

    def command(self, address: str, seconds: int) -> list[str]:
        """Give no real command."""
        return ["true", address, str(seconds)]

    def run(self, bed: Bed, seconds: int, udp: Path) -> dict[str, float]:  # noqa: ARG002
        """Give the next figure."""
        self.order.append(bed.name)
        value = self.script[bed.name].pop(0)
        if value is None:
            raise ParseError("the tool died")
        return {"x": value}


def measure(row: Row, beds: list[Bed], plan: Plan) -> tuple[Samples, list[dict[str, Any]]]:
    """Run a plan; returns its samples and lines."""
    samples = Samples()
    samples.measure([row], beds, plan, Path("udp"), lambda _: None)
    return samples, list(samples.lines([row], beds, plan.seconds))


def test_beds_alternate_and_take_turns_at_being_first() -> None:
    """No bed always runs right after the same other one."""
    row = Scripted({"kernel": [1.0, 1.0], "fwd": [1.0, 1.0]})
    measure(row, [Kernel(), Ours(), Other()], Plan(2, 1))
    assert row.order == ["kernel", "fwd", "fwd", "kernel"]
    assert rotated([], 3) == []


def test_a_failed_run_is_a_hole_and_a_remark() -> None:
    """The ratio uses only the rounds that both have, and the bed gets fresh servers."""
    ours = Ours()
    row = Scripted({"kernel": [2.0, 4.0, 8.0], "fwd": [None, 1.0, 4.0]})
    samples, lines = measure(row, [Kernel(), ours], Plan(3, 1))
    assert samples.values["scripted", "x", "fwd"] == [None, 1.0, 4.0]
    line = next(line for line in lines if line.get("bed") == "fwd" and "n" in line)
    assert line["ratio"]["kernel"] == {"n": 2, "min": 0.25, "median": 0.375, "max": 0.5}
    (said,) = (line for line in lines if "remark" in line)
    assert (said["remark"], said["row"], said["bed"]) == ("failed", "scripted", "fwd")
    assert "the tool died" in said["text"]
    assert ours.served == 1


def test_a_hole_at_the_end_keeps_later_rounds_in_place() -> None:
    """A bed that failed last has fewer values, and none of them moves to another round."""
    row = Scripted({"kernel": [2.0, 4.0], "fwd": [1.0, None]})
    _, lines = measure(row, [Kernel(), Ours()], Plan(2, 1))
    line = next(line for line in lines if line.get("bed") == "fwd" and "n" in line)
    assert line["ratio"]["kernel"] == {"n": 1, "min": 0.5, "median": 0.5, "max": 0.5}


def test_beds_measured_once_run_in_the_first_round_only() -> None:
    """The others go on."""
    row = Scripted({"kernel": [1.0, 2.0], "fwd": [1.0]})
    plan = Plan(2, 1, frozenset({"fwd"}), frozenset({"scripted"}))
    samples, _ = measure(row, [Kernel(), Ours()], plan)
    assert samples.values["scripted", "x", "kernel"] == [1.0, 2.0]
    assert samples.values["scripted", "x", "fwd"] == [1.0]


def test_beds_measured_once_leave_other_rows_out() -> None:
    """Only the rows named for them."""
    row = Scripted({"kernel": [1.0]})
    measure(row, [Kernel(), Ours()], Plan(1, 1, frozenset({"fwd"}), frozenset({"rr"})))
    assert row.order == ["kernel"]


def test_no_round_begins_when_the_time_is_used_up() -> None:
    """The first one always runs, and the remark says how many did."""
    row = Scripted({"kernel": [1.0, 2.0]})
    _, lines = measure(row, [Kernel()], Plan(2, 1, until=time.monotonic() - 1))
    assert row.order == ["kernel"]
    assert [line["text"] for line in lines if "remark" in line] == [
        "1 of 2 rounds: the time was used up"
    ]


def test_every_row_runs_on_the_reference_and_on_fwd() -> None:
    """A row that lacks either has no ratio to show."""
    for row in ROWS.values():
        reference = BEDS["bridge" if row.pair == "local" else "kernel"]
        assert row.can_run(reference), row.key
        assert row.can_run(BEDS["fwd"]), row.key
        assert row.can_run(BEDS["fwd-plain"]), row.key


def test_goals_name_beds_that_run_the_row() -> None:
    """A goal against a bed that never runs would never be judged."""
    for row in ROWS.values():
        for metric in row.metrics:
            for goal in metric.goals:
                assert row.can_run(BEDS[goal.to]), (row.key, goal)
                better = goal.aim <= goal.must if metric.lower_is_better else goal.aim >= goal.must
                assert better, (row.key, goal)
