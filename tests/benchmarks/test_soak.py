"""The soak: its judgement, and a minute of it."""

from __future__ import annotations

import os

import pytest

from benchmarks.soak import Sample, slope, soak, verdict

MIB = 1 << 20


def samples(*anon: int) -> list[Sample]:
    """One a minute."""
    return [Sample(60.0 * (index + 1), value, 20, 3) for index, value in enumerate(anon)]


def test_growth_is_fitted_after_the_warm_up():
    """What a daemon takes in its first third is no leak; a megabyte a minute after it is."""
    assert slope(samples(1, 50, 100, 100, 100, 100, 100, 100, 100)) == pytest.approx(0)
    steady = [50 * MIB + minute * MIB for minute in range(9)]
    assert slope(samples(*steady)) == pytest.approx(60 * MIB)


def test_each_missed_limit_is_named():
    """A row that is not kept is False; a daemon with one more descriptor at the end passes."""
    result = {
        "pings_failed": 0, "refused": 1, "lost": [0, 2], "reset": 0, "taps_leaked": 0,
        "links_left": ["fwdtap7"], "missing": 0, "complaints": [], "whole": True,
        "slope": {"n1": 0.5 * MIB, "n2": 2.0 * MIB}, "fds": {"n1": [18, 19], "n2": [17, 20]},
    }  # fmt: skip
    missed = {name for name, *_, good in verdict(result, limit=MIB) if not good}
    assert missed == {
        "reloads refused", "datagrams lost", "links left", "descriptors of n2", "memory of n2",
    }  # fmt: skip


@pytest.mark.netns
@pytest.mark.slow
def test_a_minute_of_it():
    """Fifty pods come and go, sixty reloads: nothing is lost, leaked or refused.

    Too short for a slope in megabytes an hour: what a daemon has grown in the last two thirds is
    judged instead. A sanitised one keeps what it frees.
    """
    result = soak(60, pods=50, reloads=60)
    grown = {name: value * 40 / 3600 for name, value in result["slope"].items()}
    print({name: f"{value / MIB:+.2f} MiB in 40 s" for name, value in grown.items()})
    result["slope"] = dict.fromkeys(grown, 0.0)
    assert [row for row in verdict(result, limit=MIB) if not row[-1]] == []
    assert result["pods"] >= 40
    assert result["reloads"] >= 80
    if "FWD_TEST_EXTENSION" not in os.environ:
        assert max(grown.values()) < 2 * MIB
