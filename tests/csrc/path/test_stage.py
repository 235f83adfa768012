"""Rows of the stages both sides share, csrc/path/stage.c."""

from __future__ import annotations

import pytest

from tests.csrc.path.rows import load, run

ROWS = load("stage")


@pytest.mark.parametrize("name", ROWS)
def test_stage_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])
