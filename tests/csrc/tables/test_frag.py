"""csrc/tables/frag.c: ports of fragmented datagrams, least recently used first out."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.internal import internal
from tests.csrc.tables.region import Region
from tests.models.frag import FragModel

KEY_LEN = 37  # two addresses, id, protocol


class Frags:
    """The table under test, spoken to in Python values."""

    def __init__(self, cap: int, seed: int = 1) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("frag_table", self.lib.frag_size(cap))
        self.table = self.region.table
        self.lib.frag_init(self.table, cap, seed)

    def store(self, key: bytes, ports: tuple[int, int], pad: int = 0) -> None:
        """Remember a first fragment."""
        self.lib.frag_store(self.table, self._key(key, pad), *ports)

    def fetch(self, key: bytes, pad: int = 0) -> tuple[int, int] | None:
        """Return the ports for a later fragment."""
        ports = self.ffi.new("uint16_t[2]")
        found = self.lib.frag_fetch(self.table, self._key(key, pad), ports, ports + 1)
        return (ports[0], ports[1]) if found else None

    def stats(self) -> Any:
        """Return ``struct fwd_table_stats``."""
        stats = self.ffi.new("struct fwd_table_stats *")
        self.lib.frag_stats(self.table, stats)
        return stats

    def _key(self, key: bytes, pad: int) -> Any:
        out = self.ffi.new("struct frag_key *")
        self.ffi.memmove(out, key + bytes([pad] * 3), KEY_LEN + 3)
        return out


def datagram(n: int) -> bytes:
    """Return a key that differs from others in one byte of each of its fields in turn."""
    key = bytearray(KEY_LEN)
    key[(0, 15, 16, 31, 32, 35, 36)[n % 7]] = 1 + n // 7
    return bytes(key)


datagrams = st.integers(0, 20).map(datagram)
ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535))
steps = st.tuples(st.sampled_from(["store", "fetch"]), datagrams, ports)


@settings(max_examples=150)
@given(st.lists(steps, max_size=60), st.integers(1, 6), st.integers(0, 2**64 - 1))
def test_frag_remembers_as_the_twin(
    todo: list[tuple[str, bytes, tuple[int, int]]], cap: int, seed: int
) -> None:
    """Any sequence of fragments, first and later, finds and forgets what the twin does."""
    table, model = Frags(cap, seed), FragModel(cap)
    for what, key, pair in todo:
        if what == "store":
            table.store(key, pair)
            model.store(key, pair)
        else:
            assert table.fetch(key) == model.fetch(key)
    stats = table.stats()
    assert (stats.cap, stats.count) == (cap, len(model.datagrams))
    assert (stats.evictions, stats.failures) == (model.evictions, 0)
    for key in list(model.datagrams):
        assert table.fetch(key) == model.fetch(key)
    assert table.region.guards_hold()


def test_frag_a_hit_saves_a_datagram_from_eviction() -> None:
    """Of three datagrams in a table of two the one not used goes."""
    table = Frags(2)
    table.store(datagram(0), (1, 2))
    table.store(datagram(1), (3, 4))
    assert table.fetch(datagram(0)) == (1, 2)
    table.store(datagram(2), (5, 6))
    assert table.fetch(datagram(1)) is None
    assert table.fetch(datagram(0)) == (1, 2)
    assert table.fetch(datagram(2)) == (5, 6)


def test_frag_padding_of_the_key_means_nothing() -> None:
    """What lies in the pad bytes of a key does not tell datagrams apart."""
    table = Frags(2)
    table.store(datagram(0), (1, 2), pad=0xFF)
    assert table.fetch(datagram(0), pad=0x11) == (1, 2)


def test_frag_capacity_zero_remembers_nothing() -> None:
    """A table without room takes first fragments and finds no later ones."""
    table = Frags(0)
    table.store(datagram(0), (1, 2))
    assert table.fetch(datagram(0)) is None
    assert table.region.guards_hold()


def test_frag_attach_keeps_the_datagrams_and_a_working_list() -> None:
    """After attach all datagrams are found, and a full table still evicts one at a time."""
    old = Frags(4)
    for n in range(4):
        old.store(datagram(n), (n, n))
    new = Frags(4)
    new.region.content = old.region.content
    assert new.lib.frag_validate(new.table, new.region.size, 4)
    assert [new.fetch(datagram(n)) for n in range(4)] == [(n, n) for n in range(4)]
    for n in range(4, 7):
        new.store(datagram(n), (n, n))
    assert [n for n in range(7) if new.fetch(datagram(n))] == [3, 4, 5, 6]
