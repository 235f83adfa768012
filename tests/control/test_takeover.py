"""From found tables to a node file's: what is read back, what is kept, when they are made anew."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.arena import Arena
from fwd.control.compile import compile_world
from fwd.control.revive import Revived
from fwd.control.store import Store
from fwd.control.takeover import read_world, take_tables
from fwd.control.world import World
from fwd.datapath.packet import Packet
from fwd.datapath.pump import PumpLoop
from tests.api.frames import syn

NOW_NS = 10**12
FILES = [Path(__file__).parent / name for name in ("trace_world.yaml", "every_key.yaml")]


def silent(_: object) -> None:
    """Neither answers nor cares."""


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def world(request):
    """Tables of a node file."""
    return compile_world(load_node_file(request.param))


def left(world) -> tuple[Revived, Arena]:
    """What a daemon with these tables leaves."""
    first = Arena(world)
    apply(first.dp, diff(None, world))
    memory = os.dup(first.memory)
    first.close()
    arena, torn = Arena.adopt(memory)
    assert torn == 0
    return Revived(Store(), arena=arena, pump=PumpLoop(arena.dp, silent, silent)), arena


def test_tables_tell_all_of_their_world(world):
    """Read back and compared, there is nothing to change, whatever the file had."""
    revived, arena = left(world)
    found = asyncio.run(read_world(arena.dp, world.ip))
    ops = diff(found, world)
    assert ops.steps == ()
    assert (ops.gone_addrs, ops.services_shrank, ops.notes) == ((), False, ())
    revived.close()


def test_half_written_reload_is_finished(world):
    """A daemon killed at any step of a reload leaves what leads to the new world all the same."""
    empty = World(world.params, world.settings, world.ip)
    smaller = replace(empty, ipcache=world.ipcache[:1])
    for before, after in ((world, smaller), (smaller, world)):
        steps = diff(before, after).steps
        for done in {0, 1, len(steps) // 2, len(steps)}:
            arena = Arena(world)
            apply(arena.dp, diff(None, before))
            part = replace(diff(before, after), steps=steps[:done])
            apply(arena.dp, part)
            found = asyncio.run(read_world(arena.dp, world.ip))
            apply(arena.dp, diff(found, after))
            again = asyncio.run(read_world(arena.dp, world.ip))
            assert diff(again, after).steps == ()
            arena.close()


def test_fitting_tables_are_kept_with_their_connections():
    """The same seed, the same entries, and the old rows to compare with."""
    world = compile_world(load_node_file(FILES[0]))
    revived, arena = left(world)
    arena.dp.run(NOW_NS, [Packet(syn(), 2825)])
    seed = arena.dp.params.hash_seed

    async def main():
        return await take_tables(revived, world)

    kept, _, old = asyncio.run(main())
    assert kept is arena
    assert old is not None
    assert set(old.endpoints) == set(world.endpoints)
    assert kept.dp.params.hash_seed == seed
    assert len(list(kept.dp.ct(tcp=True))) == 1
    revived.close()


def test_connections_of_an_address_that_is_new_are_purged():
    """The daemon before may have died before it purged them for the one that had it then."""
    world = compile_world(load_node_file(FILES[0]))
    revived, arena = left(world)
    arena.dp.run(NOW_NS, [Packet(syn(), 2825)])
    for row in world.lxc:
        if row.lxc_id == 2825:
            arena.dp.lxc_delete(row.addr)
    asyncio.run(take_tables(revived, world))
    assert list(arena.dp.ct(tcp=True)) == []
    revived.close()


def test_too_small_tables_are_made_anew():
    """It is said why, and nothing of the old ones is left in the store."""
    world = compile_world(load_node_file(FILES[0]))
    small = replace(world, params=replace(world.params, endpoints=len(world.endpoints)))
    revived, arena = left(small)
    more = replace(world.endpoints[0], lxc_id=4000)
    larger = replace(world, endpoints=(*world.endpoints, more))
    with structlog.testing.capture_logs() as logs:
        new, pump, old = asyncio.run(take_tables(revived, larger))
    assert new is not arena
    assert old is None
    assert not revived.running
    apply(new.dp, diff(None, larger))
    assert logs[0]["log_level"] == "warning"
    assert "made anew" in logs[0]["event"]
    assert "endpoint table holds" in logs[0]["details"]
    pump.close()
    revived.close()
