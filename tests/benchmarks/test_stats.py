"""benchmarks/stats.py: medians, spreads, ratios of the same round."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import Spread, ratios, rounded, spread

figures = st.floats(min_value=1e-6, max_value=1e9)
rounds = st.lists(st.none() | figures, max_size=9)


def test_spread_leaves_out_failed_rounds() -> None:
    """A round without a figure counts neither as zero nor as a round."""
    assert spread([3.0, None, 1.0, 2.0]) == Spread(3, 1.0, 2.0, 3.0)
    assert spread([None, None]) is None
    assert spread([]) is None


def test_ratios_divide_the_same_round() -> None:
    """The machine was twice as fast in round two, for both: the ratio did not change."""
    assert ratios([1.0, 2.0], [4.0, 8.0]) == [0.25, 0.25]


def test_ratios_have_holes_where_either_has() -> None:
    """No ratio to a failed round, to a zero, or to a round the other bed did not run."""
    assert ratios([1.0, None, 1.0, 1.0], [None, 2.0, 0.0]) == [None, None, None]


@given(rounds)
def test_spread_is_ordered_and_of_the_rounds(values: list[float | None]) -> None:
    """Least, median and most are what the standard library says of the figures that are there."""
    there = [value for value in values if value is not None]
    got = spread(values)
    assert (got is None) == (not there)
    if got is not None:
        assert got == Spread(len(there), min(there), statistics.median(there), max(there))


@given(rounds)
def test_ratio_to_itself_is_one(values: list[float | None]) -> None:
    """Whatever the rounds, a bed is as fast as itself."""
    assert all(ratio in {None, 1.0} for ratio in ratios(values, values))


@given(figures)
def test_rounded_keeps_five_digits(value: float) -> None:
    """What is saved is within a ten-thousandth of what was measured."""
    assert abs(rounded(value) - value) <= value * 1e-4
    assert rounded(7) == 7
