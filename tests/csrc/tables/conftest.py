"""The tables' tests need the library's test build: one failure to compile it, not one a test."""

from __future__ import annotations

import pytest

from tests.csrc.internal import internal


@pytest.fixture(scope="session", autouse=True)
def library() -> None:
    """Compile before the first test, so that hypothesis never tries to shrink a compiler error."""
    internal()
