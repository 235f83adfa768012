"""Interleaved rounds: in each, every row runs on every bed before the next row begins.

So the figures that are compared were taken seconds apart, and what else the machine did in that
minute is in all of them. The beds' order moves on by one each round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.beds import REFERENCE, SAME_NODE_REFERENCE
from benchmarks.lines import figure, remark
from benchmarks.parse import ParseError
from fwd.control.lab import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.beds.bed import Bed
    from benchmarks.rows import Metric, Row

__all__ = ["Plan", "Samples", "rotated"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: int
    """Of each run."""
    once: frozenset[str] = frozenset()
    """Beds that are measured in the first round only, and there on ``once_rows``."""
    once_rows: frozenset[str] = frozenset()
    until: float = float("inf")
    """time.monotonic() after which no further round begins."""

    def wants(self, row: Row, bed: Bed, number: int) -> bool:
        """Whether a row runs on a bed in round ``number``, counted from 0."""
        if bed.name not in self.once:
            return row.can_run(type(bed))
        return number == 0 and row.key in self.once_rows and row.can_run(type(bed))


def rotated(beds: Sequence[Bed], by: int) -> list[Bed]:
    """Give the beds beginning with another one, so that none always runs first."""
    start = by % len(beds) if beds else 0
    return [*beds[start:], *beds[:start]]


@dataclass(slots=True)
class Samples:
    """What rounds gave, and what they did not."""

    values: dict[tuple[str, str, str], list[float | None]] = field(default_factory=dict)
    """(row, metric, bed) to one value a round."""
    remarks: list[dict[str, Any]] = field(default_factory=list)
    rounds: int = 0

    def measure(
        self,
        rows: Sequence[Row],
        beds: Sequence[Bed],
        plan: Plan,
        udp: Path,
        tell: Callable[[str], None],
    ) -> None:
        """Run the plan; a run that fails is a remark and a hole in its round."""
        for number in range(plan.rounds):
            if number and time.monotonic() > plan.until:
                text = f"{number} of {plan.rounds} rounds: the time was used up"
                self.remarks.append(remark("left-out", text))
                tell(text)
                break
            for row in rows:
                for bed in rotated(beds, number):
                    if plan.wants(row, bed, number):
                        self._one(row, bed, plan.seconds, udp, tell)
            self.rounds += 1

    def _one(
        self, row: Row, bed: Bed, seconds: int, udp: Path, tell: Callable[[str], None]
    ) -> None:
        where = f"round {self.rounds + 1}, {row.key} on {bed.name}"
        try:
            got = row.run(bed, seconds, udp)
        except (LabError, ParseError, OSError) as error:
            self.remarks.append(remark("failed", f"{where}: {error}", row=row.key, bed=bed.name))
            tell(f"{where}: failed: {error}")
            self._restart(bed)
            return
        for metric in row.metrics:
            values = self.values.setdefault((row.key, metric.key, bed.name), [])
            values.extend([None] * (self.rounds - len(values)))
            values.append(got[metric.key])
        shown = ", ".join(f"{got[m.key]:.4g} {m.unit}" for m in row.metrics)
        tell(f"{where}: {shown}")

    def _restart(self, bed: Bed) -> None:
        """Give the next row fresh servers; one that is left busy would refuse it."""
        try:
            bed.serve()
        except LabError as error:
            self.remarks.append(remark("failed", f"restarting servers: {error}", bed=bed.name))

    def lines(
        self, rows: Sequence[Row], beds: Sequence[Bed], seconds: int
    ) -> Iterator[dict[str, Any]]:
        """One JSON line a row, metric and bed, with ratios of the same rounds; then the remarks."""
        for row in rows:
            for metric in row.metrics:
                rounds = {
                    bed.name: self.values.get((row.key, metric.key, bed.name)) for bed in beds
                }
                for bed in beds:
                    mine = rounds[bed.name]
                    if mine is None:
                        continue
                    place = {
                        "row": row.key, "metric": metric.key, "title": metric.title,
                        "unit": metric.unit, "bed": bed.name, "seconds": seconds,
                        "tool": " ".join(row.command("ADDRESS", seconds)),
                    }  # fmt: skip
                    line = figure(place, mine, _compared(metric, bed.name, rounds))
                    if line is not None:
                        yield line
        yield from self.remarks


def _compared(
    metric: Metric, bed: str, rounds: dict[str, list[float | None] | None]
) -> dict[str, list[float | None]]:
    """Whose rounds a bed's are divided by: the references', and for fwd everybody's."""
    if not metric.compared:
        return {}
    others = {n: values for n, values in rounds.items() if values is not None and n != bed}
    if bed == "fwd":
        return others
    return {n: values for n, values in others.items() if n in {REFERENCE, SAME_NODE_REFERENCE}}
