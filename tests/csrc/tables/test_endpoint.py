"""csrc/tables/endpoint.c: endpoints by id, their token bucket, and local addresses."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.model.rows import Address, EndpointRow, LxcRow
from tests.csrc.internal import internal
from tests.csrc.tables.region import Region, address, dump, fill_address

SECOND = 1_000_000_000


class Endpoints:
    """The table under test, spoken to in Python values."""

    def __init__(self, cap: int) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("endpoint_table", self.lib.endpoint_size(cap))
        self.table = self.region.table
        self.lib.endpoint_init(self.table, cap)

    def upsert(self, row: EndpointRow) -> str:
        """Return the error text, empty when the row was written."""
        error = self.ffi.new("struct fwd_error *")
        fields = {name: getattr(row, name) for name in ("lxc_id", "identity", "ifindex")}
        source = self.ffi.new("struct fwd_endpoint_row *", fields)
        source.mac, source.node_mac = row.mac, row.node_mac
        result = self.lib.endpoint_upsert(self.table, source, error)
        assert (result == 0) == (error.code == 0)
        return self.ffi.string(error.message).decode()

    def get(self, lxc_id: int) -> EndpointRow | None:
        """Return the endpoint of an id or port."""
        found = self.lib.endpoint_get(self.table, lxc_id)
        return None if found == self.ffi.NULL else endpoint_row(found)

    def rows(self) -> list[EndpointRow]:
        """Return the whole table."""
        found = dump(self.lib.endpoint_dump, self.table, "fwd_endpoint_row")
        return [endpoint_row(row) for row in found]


def endpoint_row(source: Any) -> EndpointRow:
    """Read a ``struct fwd_endpoint_row`` or a ``struct endpoint``."""
    return EndpointRow(
        source.lxc_id, source.identity, source.ifindex, bytes(source.mac), bytes(source.node_mac)
    )


ids = st.sampled_from([1, 2, 3, 7, 2826, 65534, 65535])
endpoint_rows = st.builds(
    EndpointRow,
    lxc_id=ids,
    identity=st.integers(0, 2**32 - 1),
    ifindex=st.integers(0, 2**31),
    mac=st.binary(min_size=6, max_size=6),
    node_mac=st.binary(min_size=6, max_size=6),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), endpoint_rows), max_size=30))
def test_endpoint_table_is_a_dict_of_ids(todo: list[tuple[bool, EndpointRow]]) -> None:
    """Any sequence of writes leaves what a dict of four has."""
    table = Endpoints(cap=4)
    model: dict[int, EndpointRow] = {}
    for write, row in todo:
        if write:
            room = row.lxc_id in model or len(model) < 4
            assert (table.upsert(row) == "") == room
            if room:
                model[row.lxc_id] = row
        else:
            deleted = table.lib.endpoint_delete(table.table, row.lxc_id)
            assert bool(deleted) == (model.pop(row.lxc_id, None) is not None)
    assert {row.lxc_id: row for row in table.rows()} == model
    for lxc_id in (0, 1, 2, 3, 7, 2826, 65534, 65535, 65536, 0x10002, 2**32 - 1):
        assert table.get(lxc_id) == model.get(lxc_id)
    stats = table.ffi.new("struct fwd_table_stats *")
    table.lib.endpoint_stats(table.table, stats)
    assert (stats.cap, stats.count) == (4, len(model))
    assert table.region.guards_hold()


def test_endpoint_refuses_id_zero_and_a_full_table() -> None:
    """Id 0 means no endpoint; a full table names its capacity and counts the refusal."""
    table = Endpoints(1)
    row = EndpointRow(7, 25002, 12, bytes(6), bytes(6))
    assert "1 to 65535" in table.upsert(replace(row, lxc_id=0))
    assert table.upsert(row) == ""
    assert "endpoint 8: the table is full with 1 endpoints" in table.upsert(replace(row, lxc_id=8))
    assert table.upsert(replace(row, identity=25003)) == ""
    found = table.get(7)
    assert found is not None
    assert found.identity == 25003
    stats = table.ffi.new("struct fwd_table_stats *")
    table.lib.endpoint_stats(table.table, stats)
    assert stats.failures == 1


class Bucket:
    """One endpoint's token bucket."""

    def __init__(self, rate_pps: int, burst: int) -> None:
        self.endpoints = Endpoints(1)
        self.endpoints.upsert(EndpointRow(7, 1, 1, bytes(6), bytes(6)))
        self.endpoint = self.endpoints.lib.endpoint_get(self.endpoints.table, 7)
        self.settings = self.endpoints.ffi.new("struct fwd_settings *")
        self.settings.punt_rate_pps, self.settings.punt_burst = rate_pps, burst

    def take(self, now_ns: int, tries: int = 1) -> int:
        """Return how many of the tries got a token."""
        take = self.endpoints.lib.endpoint_take_token
        return sum(take(self.endpoint, self.settings, now_ns) for _ in range(tries))

    def take_error(self, now_ns: int, tries: int = 1, *, outside: bool = False) -> int:
        """The same for ICMP errors to the endpoint, or to anybody outside."""
        take, table = self.endpoints.lib.endpoint_take_error_token, self.endpoints.table
        endpoint = self.endpoints.ffi.NULL if outside else self.endpoint
        return sum(take(table, endpoint, self.settings, now_ns) for _ in range(tries))


def test_errors_have_buckets_of_their_own() -> None:
    """ICMP errors cost a pod neither its ARP nor the outside its errors, nor do they it."""
    bucket = Bucket(100, 5)
    assert bucket.take_error(0, 9) == 5
    assert bucket.take_error(0, 9, outside=True) == 5
    assert bucket.take(0, 9) == 5
    assert bucket.take_error(SECOND // 100, 9) == 1
    assert bucket.take_error(SECOND, 99, outside=True) == 5


BUCKET_ROWS = [
    # each ask: time in ns, tries, tries granted
    pytest.param(100, 5, [(0, 9, 5)], id="a new endpoint has its burst, also at time 0"),
    pytest.param(100, 5, [(10**15, 9, 5)], id="and no more however late it comes"),
    pytest.param(100, 5, [(0, 5, 5), (SECOND // 100, 9, 1)], id="one token after 1/rate"),
    pytest.param(100, 5, [(0, 5, 5), (SECOND // 100 - 1, 9, 0)], id="none just before"),
    pytest.param(100, 5, [(0, 5, 5), (SECOND, 99, 5)], id="never above the burst"),
    pytest.param(100, 5, [(0, 5, 5), (2**63, 99, 5)], id="nor after centuries"),
    pytest.param(
        100,
        5,
        [(0, 5, 5), *[(n, 1, 0) for n in range(1, 100)], (SECOND // 100, 1, 1)],
        id="frequent askers lose no fraction",
    ),
    pytest.param(0, 5, [(0, 3, 0), (SECOND, 3, 0)], id="rate 0 lets nothing through"),
    pytest.param(100, 0, [(0, 3, 0), (SECOND, 3, 0)], id="burst 0 lets nothing through"),
    pytest.param(2**32 - 1, 2**32 - 1, [(0, 9, 9), (2**63, 9, 9)], id="the largest numbers fit"),
    pytest.param(
        100,
        5,
        [(SECOND, 5, 5), (0, 1, 0), (SECOND // 100, 1, 1)],
        id="a refill time in the future (a foreign arena) heals",
    ),
]


@pytest.mark.parametrize(("rate", "burst", "asks"), BUCKET_ROWS)
def test_endpoint_token_bucket_row(rate: int, burst: int, asks: list[tuple[int, int, int]]) -> None:
    """The bucket grants exactly what its rate and burst allow at each time."""
    bucket = Bucket(rate, burst)
    assert [bucket.take(now, tries) for now, tries, _ in asks] == [g for _, _, g in asks]


def test_endpoint_bucket_survives_an_update_and_heeds_a_lower_burst() -> None:
    """Rewriting an endpoint gives no new burst; a lowered burst counts at once."""
    bucket = Bucket(100, 10)
    assert bucket.take(0, 4) == 4
    bucket.endpoints.upsert(EndpointRow(7, 2, 2, bytes(6), bytes(6)))
    bucket.settings.punt_burst = 3
    assert bucket.take(0, 9) == 3


@settings(max_examples=60)
@given(
    st.integers(1, 5000),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 30_000_000), st.integers(1, 6)), max_size=40),
)
def test_endpoint_bucket_keeps_to_its_rate(
    rate: int, burst: int, asks: list[tuple[int, int]]
) -> None:
    """Against an exact bucket it grants never more, and at most a token less."""
    bucket, now_ns = Bucket(rate, burst), 0
    tokens, granted, owed = Fraction(burst), 0, 0
    for gap_ns, tries in asks:
        now_ns += gap_ns
        tokens = min(Fraction(burst), tokens + Fraction(gap_ns * rate, SECOND))
        exact = min(tries, int(tokens))
        tokens -= exact
        granted += bucket.take(now_ns, tries)
        owed += exact
        assert owed - 1 <= granted <= owed


class Lxc:
    """cilium_lxc under test."""

    def __init__(self, cap: int) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("lxc_table", self.lib.lxc_size(cap))
        self.table = self.region.table
        self.lib.lxc_init(self.table, cap, 1)

    def addr(self, addr: Address) -> Any:
        """Return the address in C."""
        out = self.ffi.new("struct fwd_addr *")
        fill_address(out, addr)
        return out

    def upsert(self, addr: Address, lxc_id: int, flags: int) -> str:
        """Return the error text, empty when the row was written."""
        row = self.ffi.new("struct fwd_lxc_row *", {"lxc_id": lxc_id, "flags": flags})
        fill_address(row.addr, addr)
        error = self.ffi.new("struct fwd_error *")
        result = self.lib.lxc_upsert(self.table, row, error)
        assert (result == 0) == (error.code == 0)
        return self.ffi.string(error.message).decode()

    def lookup(self, addr: Address) -> LxcRow | None:
        """Return the row of exactly this address."""
        found = self.lib.lxc_lookup(self.table, self.addr(addr))
        return None if found == self.ffi.NULL else lxc_row(found)


def lxc_row(source: Any) -> LxcRow:
    """Read a ``struct fwd_lxc_row``."""
    return LxcRow(address(source.addr), source.lxc_id, bool(source.flags & 1))


lxc_addresses = st.sampled_from(
    [ip_address(text) for text in ("10.0.0.1", "10.0.0.2", "::1", "fd00::a00:1", "0.0.0.0", "::")]
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), lxc_addresses, st.integers(0, 65535)), max_size=25))
def test_lxc_is_a_dict_of_addresses(todo: list[tuple[bool, Address, int]]) -> None:
    """Any sequence of writes leaves what a dict of four has; id 0 is the host's."""
    table = Lxc(cap=4)
    model: dict[Address, LxcRow] = {}
    for write, addr, lxc_id in todo:
        if write:
            room = addr in model or len(model) < 4
            assert (table.upsert(addr, lxc_id, int(lxc_id == 0)) == "") == room
            if room:
                model[addr] = LxcRow(addr, lxc_id, host=lxc_id == 0)
        else:
            deleted = table.lib.lxc_delete(table.table, table.addr(addr))
            assert bool(deleted) == (model.pop(addr, None) is not None)
    for addr in [*model, ip_address("10.0.0.1"), ip_address("10.0.0.3"), ip_address("::2")]:
        assert table.lookup(addr) == model.get(addr)
    rows = [lxc_row(row) for row in dump(table.lib.lxc_dump, table.table, "fwd_lxc_row")]
    assert {row.addr: row for row in rows} == model
    assert len(rows) == len(model)
    assert table.region.guards_hold()


@pytest.mark.parametrize(("lxc_id", "flags"), [(0, 0), (7, 1)])
def test_lxc_refuses_a_row_of_nobody_and_of_two(lxc_id: int, flags: int) -> None:
    """An address belongs to an endpoint or to the node, never to both or neither."""
    table = Lxc(4)
    assert "10.0.0.1" in table.upsert(ip_address("10.0.0.1"), lxc_id, flags)
    assert table.lookup(ip_address("10.0.0.1")) is None


def test_lxc_full_table_names_its_capacity() -> None:
    """A full table refuses and says how large it is."""
    table = Lxc(1)
    assert table.upsert(ip_address("fd00::1"), 7, 0) == ""
    assert "fd00::2: the table is full with 1" in table.upsert(ip_address("fd00::2"), 8, 0)
