"""What closes every test with faults: the invariants of tests/netns."""

from tests.netns.conftest import pytest_runtest_call

__all__ = ["pytest_runtest_call"]
