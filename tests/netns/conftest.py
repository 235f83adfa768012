"""Labs for the end-to-end tests; the topology is drawn in worlds.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fwd.control.lab import Lab
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Generator[None, object, object]:
    """Close every test with the invariant of the counters, in each lab that it has used."""
    result = yield
    for value in item.funcargs.values():
        if isinstance(value, Net):
            value.check()
    return result


def _up(pods1: list[dict[str, Any]], pods2: list[dict[str, Any]]) -> Iterator[Net]:
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in two_nodes(pods1, pods2)]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        yield net


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """One pod a node, shared by the tests of a file: they leave it as they found it."""
    yield from _up([pod("node1", 0)], [pod("node2", 0)])


@pytest.fixture
def own_net() -> Iterator[Net]:
    """Two pods a node, for a test that breaks something."""
    yield from _up([pod("node1", 0), pod("node1", 1)], [pod("node2", 0), pod("node2", 1)])
