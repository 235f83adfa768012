"""Rows of the host side, csrc/path/north_south.c."""

from __future__ import annotations

import pytest

from tests.csrc.path.rows import load, run

ROWS = load("north_south")


@pytest.mark.parametrize("name", ROWS)
def test_north_south_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])
