"""What is taken from the store and forwarded with, and what is dropped."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.manager import Manager
from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.arena import Arena
from fwd.control.compile import compile_world
from fwd.control.revive import PodName, revive
from fwd.control.store import Store
from fwd.netlink.tap import open_tap
from tests.netlink.namespaces import open_descriptors

pytestmark = pytest.mark.netns
DIGEST = "0123456789abcdef"


@pytest.fixture
def world():
    """Tables of trace_world.yaml."""
    return compile_world(load_node_file(Path(__file__).parent / "trace_world.yaml"))


@pytest.fixture
def memory(world):
    """A memfd with them."""
    arena = Arena(world)
    apply(arena.dp, diff(None, world))
    fd = os.dup(arena.memory)
    arena.close()
    return fd


def pod_name(row, **keys) -> str:
    """Name of the TAP of an endpoint's row."""
    name = PodName(row.lxc_id, row.ifindex, row.mac, 4026532000, DIGEST)
    return str(replace(name, **keys))


def look(given, store=None):
    """Revive and say what came of it: (what is in the pump, notes)."""

    async def main():
        revived = revive(given, store or Store())
        try:
            watched = [one.name for one in revived.taps() if one.watched]
            return watched, revived.running, [f"{a}: {b}: {c}" for a, b, c in revived.notes]
        finally:
            revived.close()

    return asyncio.run(main())


def test_name_of_a_tap_reads_back():
    """And what is none of ours is None."""
    name = PodName(10, 7, b"\x02\x00\x00\x00\x00\x0a", 4026532000, DIGEST)
    assert PodName.parse(str(name)) == name
    for text in ("host", "pod-1", "pod-x-7-0a-1-d", "pod-1-7-zz-1-d", "nod-1-7-0a-1-d"):
        assert PodName.parse(text) is None


def test_first_start_finds_nothing():
    """And says nothing."""
    assert look({}) == ([], False, [])


def test_devices_run_with_the_tables_that_know_them(world, memory):
    """A TAP that another ifindex or MAC was known by does not: the port is another pod's now."""
    row = world.endpoints[0]
    before = open_descriptors()
    taps = [open_tap() for _ in range(4)]
    names = [
        pod_name(row),
        pod_name(row, ifindex=row.ifindex + 1),
        pod_name(row, mac=bytes(6)),
        pod_name(row, lxc_id=4000),
    ]
    given = {name: [tap.fd] for name, tap in zip(names, taps, strict=True)}
    watched, running, notes = look({"arena": [memory], **given})
    assert (watched, running) == ([names[0]], True)
    assert notes == ["info: tables taken over: 0 half-written entries dropped"]
    assert open_descriptors() == before - 1, "all were ours, the memfd included"


def test_nothing_runs_without_tables(world):
    """Devices are kept for later; it is said that connections are forgotten."""
    tap = open_tap()
    watched, running, notes = look({pod_name(world.endpoints[0]): [tap.fd]})
    assert (watched, running) == ([], False)
    (note,) = notes
    assert note.startswith("warning: tables are made anew, connections are forgotten: ")
    assert note.endswith("the store has devices but no tables")


@pytest.mark.parametrize("more", [1, 2])
def test_several_arenas_are_none(memory, more):
    """None is believed, an odd one left over neither."""
    watched, running, notes = look({"arena": [memory, *(os.dup(memory) for _ in range(more))]})
    assert (watched, running) == ([], False)
    assert any("more than one arena" in note for note in notes)


def test_what_cannot_be_used_is_dropped_from_the_store(memory, tmp_path):
    """A pipe, a second tunnel socket, a TCP socket: closed here and there."""
    read, write = os.pipe()
    tcp = socket.socket()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    second = os.dup(udp.fileno())
    with Manager(tmp_path, "u") as manager:
        store = Store(str(manager._path), 10, "u")
        for name, fd in (("thing", read), ("host", write)):
            store.put(name, fd)
        assert store.settle()
        given = {"thing": [read], "host": [write], "tunnel": [tcp.detach(), udp.detach(), second]}
        _, running, notes = look({"arena": [memory], **given}, store)
        assert store.settle()
        assert running
        assert manager.names() == []
    for name in ("thing", "host", "tunnel"):
        assert any(f"stored descriptor {name} dropped" in note for note in notes)
    for fd in (read, write, second):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
