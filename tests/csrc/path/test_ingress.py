"""Rows of the receiving node, csrc/path/ingress.c."""

from __future__ import annotations

import pytest

from tests.csrc.path.rows import load, run

ROWS = load("ingress")


@pytest.mark.parametrize("name", ROWS)
def test_ingress_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])
