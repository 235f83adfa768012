"""Long lists leave the CPU to others, short ones do not."""

from __future__ import annotations

import os

from fwd.cli.background import AT_ONCE, in_background


def test_only_what_is_beyond_the_first_rows_yields():
    """The thread's policy changes with the first row after those, and changes back at the end."""
    policies = []
    for row in in_background(range(AT_ONCE + 2)):
        policies.append(os.sched_getscheduler(0))
        assert row == len(policies) - 1
    assert policies == [os.SCHED_OTHER] * AT_ONCE + [os.SCHED_IDLE] * 2
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_list_that_is_left_early_changes_back():
    """Whoever stops reading gets the usual policy again."""
    rows = in_background(range(AT_ONCE + 2))
    for _ in range(AT_ONCE + 1):
        next(rows)
    assert os.sched_getscheduler(0) == os.SCHED_IDLE
    rows.close()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_another_policy_is_kept():
    """SCHED_BATCH, say, was somebody's wish."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        list(in_background(range(AT_ONCE + 2)))
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
