"""Medians, spreads and ratios of rounds. A round that failed on a bed is None there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Spread", "ratios", "rounded", "spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """What is said about the rounds that gave a figure."""

    n: int
    min: float
    median: float
    max: float

    def as_json(self) -> dict[str, Any]:
        """Its fields, for a JSON line."""
        return {name: rounded(value) for name, value in asdict(self).items()}


def spread(values: Sequence[float | None]) -> Spread | None:
    """Sum up the rounds that gave a figure; None when none did."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    return Spread(len(there), min(there), median(there), max(there))


def ratios(values: Sequence[float | None], reference: Sequence[float | None]) -> list[float | None]:
    """Divide each round's figure by the reference's of the same round.

    A round that lacks either, or whose reference is 0, has no ratio.
    """
    pairs = zip(values, reference, strict=False)
    return [one / other if one is not None and other else None for one, other in pairs]


def rounded(value: float) -> float:
    """Keep five significant digits: more would be noise."""
    return value if isinstance(value, int) else float(f"{value:.5g}")
