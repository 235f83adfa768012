"""What closes every test with faults: the invariants of tests/netns."""

from tests.netns.conftest import own_net, pytest_runtest_call

__all__ = ["own_net", "pytest_runtest_call"]
