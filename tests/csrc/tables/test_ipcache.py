"""csrc/tables/ipcache.c: longest prefix match against a dict that looks at every prefix."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.model.rows import Address, IpcacheRow, Network
from tests.csrc.internal import internal
from tests.csrc.tables.region import Region, dump, fill_address, ipcache_c, ipcache_row
from tests.models.ipcache import IpcacheModel


class Ipcache:
    """The table under test, spoken to in Python values."""

    def __init__(self, cap: int, seed: int = 1) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("ipcache", self.lib.ipcache_size(cap))
        self.table = self.region.table
        self.lib.ipcache_init(self.table, cap, seed)

    def upsert(self, row: IpcacheRow) -> str:
        """Return the error text, empty when the row was written."""
        return self.upsert_c(ipcache_c(row))

    def upsert_c(self, row: Any) -> str:
        """Write a row that is in C already."""
        error = self.ffi.new("struct fwd_error *")
        result = self.lib.ipcache_upsert(self.table, row, error)
        assert (result == 0) == (error.code == 0)
        return self.ffi.string(error.message).decode()

    def delete(self, prefix: Network) -> bool:
        """Remove exactly this prefix."""
        return bool(self.lib.ipcache_delete(self.table, ipcache_c(IpcacheRow(prefix, 0))))

    def lookup(self, addr: Address) -> IpcacheRow | None:
        """Return the row of the longest prefix."""
        wanted = self.ffi.new("struct fwd_addr *")
        fill_address(wanted, addr)
        entry = self.lib.ipcache_lookup(self.table, wanted)
        return None if entry == self.ffi.NULL else ipcache_row(entry)

    def settle(self) -> bool:
        """Make lookups fast; True = they are."""
        return bool(self.lib.ipcache_settle(self.table))

    def rows(self) -> list[IpcacheRow]:
        """Return the whole table."""
        return [ipcache_row(r) for r in dump(self.lib.ipcache_dump, self.table, "fwd_ipcache_row")]

    def count(self) -> int:
        """Return what the table says it holds."""
        stats = self.ffi.new("struct fwd_table_stats *")
        self.lib.ipcache_stats(self.table, stats)
        return int(stats.count)


def net(text: str) -> Network:
    """Parse a prefix."""
    return ip_network(text)


def narrow(addr: Address, prefix_len: int) -> Network:
    """Return the prefix of that length around an address."""
    return ip_network(f"{addr}/{min(prefix_len, addr.max_prefixlen)}", strict=False)


# Few distinct bits, so that prefixes contain each other and lookups land near their edges.
bits32 = st.sampled_from([0, 1, 0x80000000, 0x0AF4006C, 0x0AF4006D, 0x0AF400FF, 0xFFFFFFFF])
v4 = st.builds(IPv4Address, bits32 | st.integers(0, 2**32 - 1))
few4 = st.sampled_from([IPv4Address(0x0A000000 + n) for n in range(4)])
v6 = st.builds(
    IPv6Address,
    st.builds(lambda high, low: high << 96 | low, bits32, bits32 | st.just(0xFFFF << 32)),
)
addresses = v4 | v6.filter(lambda addr: addr.ipv4_mapped is None)
lengths = st.sampled_from([0, 1, 8, 24, 31, 32, 63, 64, 65, 96, 127, 128]) | st.integers(0, 128)
wide = st.builds(narrow, addresses, lengths).filter(
    # ::ffff:0:0/96 and longer are IPv4 written in IPv6: refused, see the test of its own
    lambda prefix: prefix.version == 4 or prefix.network_address.ipv4_mapped is None
)
prefixes = wide | st.builds(narrow, few4, st.sampled_from([0, 30, 31, 32]))
rows = st.builds(
    IpcacheRow,
    prefix=prefixes,
    identity=st.integers(0, 2**32 - 1),
    tunnel_endpoint=st.none() | v4.filter(int),
    skip_tunnel=st.booleans(),
)


@dataclass(frozen=True)
class Step:
    """One operation; ``near`` picks among the prefixes written so far."""

    what: str
    row: IpcacheRow
    near: int


steps = st.builds(
    Step, st.sampled_from(["upsert", "upsert", "delete", "delete known"]), rows, st.integers(0, 99)
)


@settings(max_examples=150)
@given(st.lists(steps, max_size=25), st.lists(addresses, max_size=8), st.integers(0, 2**64 - 1))
def test_ipcache_answers_as_the_twin(todo: list[Step], asked: list[Address], seed: int) -> None:
    """Any sequence of writes, with a table that gets full, leaves what the twin has."""
    table, model = Ipcache(cap=6, seed=seed), IpcacheModel(cap=6)
    for step in todo:
        known = list(model.rows)
        if step.what == "upsert":
            assert (table.upsert(step.row) == "") == model.upsert(step.row)
        elif step.what == "delete" or not known:
            assert table.delete(step.row.prefix) == model.delete(step.row.prefix)
        else:
            prefix = known[step.near % len(known)]
            assert table.delete(prefix) == model.delete(prefix)
    near = [addr for prefix in model.rows for addr in edges(prefix)]
    for addr in near + asked:
        assert table.lookup(addr) == model.lookup(addr), addr
    assert sorted(table.rows(), key=str) == sorted(model.rows.values(), key=str)
    assert table.count() == len(model.rows)
    assert table.region.guards_hold()


def edges(prefix: Network) -> list[Address]:
    """Return the first and last address of a prefix, and those just outside."""
    first, last = int(prefix.network_address), int(prefix.broadcast_address)
    kind = type(prefix.network_address)
    inside = range(2**prefix.max_prefixlen)
    found = [kind(n) for n in (first - 1, first, last, last + 1) if n in inside]
    return [addr for addr in found if addr.version == 4 or addr.ipv4_mapped is None]


def test_ipcache_longest_prefix_wins_and_falls_back_on_delete() -> None:
    """A pod's /32 hides its node's /24 and the world's /0, and gives them back."""
    table = Ipcache(8)
    for prefix, identity in [("0.0.0.0/0", 2), ("10.244.2.0/24", 6), ("10.244.2.171/32", 25002)]:
        assert table.upsert(IpcacheRow(net(prefix), identity)) == ""
    pod = ip_address("10.244.2.171")
    seen = []
    for prefix in ["10.244.2.171/32", "10.244.2.0/24", "0.0.0.0/0"]:
        found = table.lookup(pod)
        assert found is not None
        seen.append(found.identity)
        assert table.delete(net(prefix))
    assert seen == [25002, 6, 2]
    assert table.lookup(pod) is None


def test_ipcache_families_never_mix() -> None:
    """::/0 says nothing about IPv4, 0.0.0.0/0 nothing about IPv6."""
    table = Ipcache(4)
    table.upsert(IpcacheRow(net("::/0"), 2))
    assert table.lookup(ip_address("10.0.0.1")) is None
    table.upsert(IpcacheRow(net("0.0.0.0/0"), 3))
    table.delete(net("::/0"))
    assert table.lookup(ip_address("::1")) is None
    found = table.lookup(ip_address("10.0.0.1"))
    assert found is not None
    assert found.identity == 3


def test_ipcache_has_tunnel_follows_the_tunnel_endpoint() -> None:
    """The has-tunnel flag is made from the address, whatever the caller's flags say."""
    table = Ipcache(4)
    row = ipcache_c(IpcacheRow(net("10.244.2.0/24"), 6, tunnel_endpoint=ip_address("192.168.0.2")))
    for tunnel, flags in [(True, 2), (False, 0)]:
        row.flags = 2 - flags  # the opposite of what is right
        if not tunnel:
            fill_address(row.tunnel_endpoint, ip_address("::"))
        assert table.upsert_c(row) == ""
        assert table.lookup(ip_address("10.244.2.1")) is not None  # ipcache_row checks the flag


def test_ipcache_attach_recounts_the_lengths() -> None:
    """Counts and bitmap of a foreign arena are not believed: the slots alone say what is there."""
    table = Ipcache(4)
    for text in ("10.0.0.1/32", "10.0.0.2/32", "fd00::/8"):
        table.upsert(IpcacheRow(net(text), 1))
    counts_len = 2 * 130 * 4 + 2 * 3 * 8
    for junk in (b"\0", b"\xff"):
        table.region.content = junk * counts_len + table.region.content[counts_len:]
        assert table.lib.ipcache_validate(table.table, table.region.size, 4)
        assert table.lookup(ip_address("fd12::1")) is not None
        assert table.lookup(ip_address("10.0.0.2")) is not None
    assert table.delete(net("10.0.0.1/32"))
    assert table.lookup(ip_address("10.0.0.2")) is not None
    assert table.lookup(ip_address("10.0.0.1")) is None


INVALID = [
    ("10.0.0.0", 4, 33, "longer than an address"),
    ("10.0.0.1", 4, 24, "behind the prefix"),
    ("128.0.0.0", 4, 0, "behind the prefix"),
    ("fd00::", 4, 8, "asks for an IPv4 address"),
    ("10.0.0.0", 6, 128, "must come with family 4"),
    ("fd00::", 6, 129, "longer than an address"),
    ("fd00::1", 6, 64, "behind the prefix"),
    ("fd00::", 6, 7, "behind the prefix"),
    ("fd00::", 0, 0, "neither 4 nor 6"),
    ("10.0.0.0", 5, 8, "neither 4 nor 6"),
]


@pytest.mark.parametrize(("addr", "family", "prefix_len", "problem"), INVALID)
def test_ipcache_refuses(addr: str, family: int, prefix_len: int, problem: str) -> None:
    """A row that could never match, or would match too much, is named and not written."""
    table = Ipcache(4)
    row = table.ffi.new("struct fwd_ipcache_row *", {"family": family, "prefix_len": prefix_len})
    fill_address(row.prefix, ip_address(addr))
    text = table.upsert_c(row)
    assert problem in text
    assert f"{addr}/{prefix_len}" in text
    assert table.count() == 0
    assert table.lib.ipcache_delete(table.table, row) == 0


def test_ipcache_full_table_refuses_new_prefixes_but_updates_old_ones() -> None:
    """A full table names its capacity, counts the refusal and still takes updates."""
    table = Ipcache(2)
    for n in range(2):
        assert table.upsert(IpcacheRow(net(f"10.0.0.{n}/32"), n)) == ""
    assert "full with 2 prefixes" in table.upsert(IpcacheRow(net("10.0.0.9/32"), 9))
    assert table.upsert(IpcacheRow(net("10.0.0.1/32"), 77)) == ""
    found = table.lookup(ip_address("10.0.0.1"))
    assert found is not None
    assert found.identity == 77
    stats = table.ffi.new("struct fwd_table_stats *")
    table.lib.ipcache_stats(table.table, stats)
    assert (stats.cap, stats.count, stats.failures) == (2, 2, 1)


def test_ipcache_holds_a_million_prefixes() -> None:
    """A million entries fit into one, are all found, and one more is refused."""
    ffi, lib = internal()
    cap = 1 << 20
    table = Ipcache(cap)
    row = ipcache_c(IpcacheRow(net("10.0.0.0/32"), 1))
    low = ffi.cast("uint8_t *", row) + 13
    error = ffi.new("struct fwd_error *")
    for n in range(cap):
        low[0], low[1], low[2] = n >> 16, n >> 8 & 0xFF, n & 0xFF
        row.identity = n
        lib.ipcache_upsert(table.table, row, error)
    assert error.code == 0
    assert table.count() == cap
    for n in (0, 1, cap // 3, cap - 1):
        found = table.lookup(IPv4Address(0x0A000000 + n))
        assert found is not None
        assert found.identity == n
    assert "full" in table.upsert(IpcacheRow(net("11.0.0.0/8"), 1))


LARGE = 1 << 14
"""The smallest table that has ranges."""


def mixed(count: int = 300) -> list[IpcacheRow]:
    """Prefixes of every length below /32, and some pods."""
    rows = []
    for number in range(count):
        word = number * 0x9E3779B1 & 0xFFFFFFFF
        length = number % 33
        prefix = ip_network((word >> (32 - length) << (32 - length), length))
        rows.append(IpcacheRow(prefix, number + 1))
    return rows


@given(st.lists(st.integers(0, 2**32 - 1).map(IPv4Address), max_size=50))
@settings(max_examples=20)
def test_settled_lookups_answer_as_the_twin(asked: list[Address]) -> None:
    """Ranges, hash by length, and ranges again after changes give the same answers."""
    table, model = Ipcache(LARGE), IpcacheModel(LARGE)
    for row in mixed():
        assert table.upsert(row) == ""
        model.upsert(row)
    edge = [addr for prefix in list(model.rows)[:40] for addr in edges(prefix)]
    for change in range(4):
        for addr in [*edge, *asked]:
            assert table.lookup(addr) == model.lookup(addr), addr
        if change == 1:  # a pod comes, a prefix changes its value: nothing gets stale
            for row in (
                IpcacheRow(net("10.1.2.3/32"), 77),
                IpcacheRow(mixed()[5].prefix, 4242),
            ):
                table.upsert(row)
                model.upsert(row)
        elif change == 2:  # prefixes come and go
            gone = mixed()[9].prefix
            assert table.delete(gone) == model.delete(gone)
            table.upsert(IpcacheRow(net("200.0.0.0/9"), 99))
            model.upsert(IpcacheRow(net("200.0.0.0/9"), 99))
        assert table.settle()
    assert table.region.guards_hold()


def test_attach_does_not_believe_the_ranges() -> None:
    """Ranges of a foreign arena are not asked until they were made again."""
    table = Ipcache(LARGE)
    for row in mixed(200):
        table.upsert(row)
    assert table.settle()
    size = table.lib.ipcache_size(LARGE)
    ranges = size - table.lib.lpm_size(LARGE)
    table.region.content = table.region.content[:ranges] + b"\xff" * (size - ranges)
    assert table.lib.ipcache_validate(table.table, table.region.size, LARGE)
    for addr in ("10.0.0.1", "200.1.1.1"):
        expect = IpcacheModel(LARGE, {row.prefix: row for row in mixed(200)})
        assert table.lookup(ip_address(addr)) == expect.lookup(ip_address(addr))
