"""The daemon's arena: views of it see its tables and cannot change them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.arena import Arena
from fwd.control.compile import compile_world
from fwd.datapath.errors import DatapathError
from fwd.datapath.packet import Packet
from fwd.model.enums import CtStatus, Verdict
from tests.api.frames import syn

NOW_NS = 10**12
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def world():
    """Tables of trace_world.yaml."""
    return compile_world(load_node_file(Path(__file__).parent / "trace_world.yaml"))


@pytest.fixture
def arena(world):
    """An arena with them."""
    arena = Arena(world)
    apply(arena.dp, diff(None, world))
    yield arena
    arena.close()


def test_a_view_changes_nothing(arena):
    """Packets on a view leave no connection, no counter and no event behind."""
    with arena.view() as view:
        for _ in range(3):
            (outcome,) = view.run(NOW_NS, [Packet(syn(), 2825)])
        assert (outcome.verdict, outcome.ct) == (Verdict.TX_UNDERLAY, CtStatus.ESTABLISHED)
        assert len(list(view.ct(tcp=True))) == 1
    assert list(arena.dp.ct(tcp=True)) == []
    assert arena.dp.metrics() == []
    assert arena.dp.events() == ([], 0)


def test_a_view_sees_what_is_live(arena):
    """A connection of the daemon is known to a view that is taken later."""
    arena.dp.run(NOW_NS, [Packet(syn(), 2825)])
    with arena.view() as view:
        assert view.run(NOW_NS, [Packet(syn(), 2825)])[0].ct == CtStatus.ESTABLISHED


def test_seeds_differ(world):
    """Two arenas hash one flow differently, so that nobody can aim at a bucket."""
    hashes = set()
    for _ in range(2):
        arena = Arena(world)
        apply(arena.dp, diff(None, world))
        hashes.add(arena.dp.run(NOW_NS, [Packet(syn(), 2825)])[0].hash)
        arena.close()
    assert len(hashes) == 2


def test_closing_leaves_no_descriptor(world):
    """Neither an arena that is closed twice nor one that cannot be made keeps its memfd."""
    before = len(list(DESCRIPTORS.iterdir()))
    arena = Arena(world)
    arena.close()
    arena.close()
    object.__setattr__(world.params, "events", 3)
    with pytest.raises(DatapathError):
        Arena(world)
    assert len(list(DESCRIPTORS.iterdir())) == before
