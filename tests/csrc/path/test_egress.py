"""Rows of the sending node, csrc/path/egress.c."""

from __future__ import annotations

import pytest

from tests.csrc.path.rows import load, run

ROWS = load("egress")


@pytest.mark.parametrize("name", ROWS)
def test_egress_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])
