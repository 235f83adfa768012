"""csrc/tables/lb_outside.c: source ranges beside ipaddress, Maglev tables, the wildcard entry."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.datapath.binding import Datapath
from fwd.datapath.errors import DatapathError
from fwd.model.maglev import MAGLEV_SIZE
from fwd.model.rows import Address, BackendRow, MaglevRow, Params, ServiceRow, SourceRangeRow
from tests.csrc.tables.lb_driver import Services
from tests.csrc.tables.region import fill_address

PARAMS = Params(ct_tcp=64, ct_any=64, ipcache=16, endpoints=4, lxc=16, policy=16, peers=4,
                fragments=4, events=16, services=4, backends=4, slots=8, affinity=4,
                source_ranges=3, maglev=2)  # fmt: skip
RANGES = [
    SourceRangeRow(1, IPv4Network("10.0.0.0/8")),
    SourceRangeRow(1, IPv6Network("fd00::/16")),
    SourceRangeRow(2, IPv4Network("0.0.0.0/0")),
]


@pytest.fixture
def dp() -> Iterator[Datapath]:
    """Small tables."""
    with Datapath.create(PARAMS) as made:
        yield made


@pytest.fixture(scope="module")
def inner() -> Iterator[Services]:
    """The inner functions on one arena, with 16 ranges and 16 Maglev tables."""
    made = Services(services=4, slots=8, backends=4, affinity=4)
    yield made
    made.close()


def test_source_ranges_come_back_as_written(dp: Datapath) -> None:
    """Both families cross both ways, writing twice is once, a delete says whether it did."""
    for row in (*RANGES, RANGES[0]):
        dp.source_range_upsert(row)
    assert set(dp.source_ranges()) == set(RANGES)
    assert dp.stats("source_range").count == 3
    with pytest.raises(DatapathError, match=r"10\.1\.0\.0/16 of service 1: the table is full"):
        dp.source_range_upsert(SourceRangeRow(1, IPv4Network("10.1.0.0/16")))
    assert dp.source_range_delete(RANGES[0])
    assert not dp.source_range_delete(RANGES[0])
    assert set(dp.source_ranges()) == set(RANGES[1:])
    with pytest.raises(DatapathError, match="no such prefix or service"):
        dp.source_range_upsert(SourceRangeRow(0, IPv4Network("10.1.0.0/16")))


def test_maglev_tables_come_back_as_written(dp: Datapath) -> None:
    """A rewrite replaces, a third finds no room, a wrong length is refused."""
    one = tuple(n % 3 + 1 for n in range(MAGLEV_SIZE))
    dp.maglev_upsert(MaglevRow(7, one))
    dp.maglev_upsert(MaglevRow(8, one[::-1]))
    dp.maglev_upsert(MaglevRow(7, one[::-1]))
    assert dp.maglev(7) == dp.maglev(8) == one[::-1]
    assert dp.maglev(9) == ()
    assert dp.stats("maglev").count == 2
    with pytest.raises(DatapathError, match="Maglev table of service 9: there is no room"):
        dp.maglev_upsert(MaglevRow(9, one))
    with pytest.raises(DatapathError, match="a rev_nat_id from 1"):
        dp.maglev_upsert(MaglevRow(0, one))
    with pytest.raises(ValueError, match="1021 places, not 3"):
        dp.maglev_upsert(MaglevRow(7, one[:3]))
    assert dp.maglev_delete(7)
    assert not dp.maglev_delete(7)
    assert dp.maglev(7) == ()


networks4 = st.builds(
    lambda addr, length: IPv4Network((addr, length), strict=False),
    st.integers(0, 255).map(lambda n: 0x0A000000 + n * 0x10101),
    st.sampled_from([0, 1, 8, 15, 16, 17, 24, 31, 32]),
)
networks6 = st.builds(
    lambda addr, length: IPv6Network((addr, length), strict=False),
    st.integers(0, 255).map(lambda n: (0xFD << 120) + n * 0x10000000000000001),
    st.sampled_from([0, 1, 7, 8, 64, 65, 120, 127, 128]),
)
clients = st.one_of(
    st.integers(0, 255).map(lambda n: IPv4Address(0x0A000000 + n * 0x10101)),
    st.integers(0, 255).map(lambda n: IPv6Address((0xFD << 120) + n * 0x10000000000000001)),
)
range_rows = st.builds(SourceRangeRow, st.integers(1, 2), st.one_of(networks4, networks6))


def write(inner: Services, row: SourceRangeRow, *, there: bool) -> None:
    """Add or take away a range."""
    prefix = row.prefix
    out = inner.ffi.new("struct fwd_source_range_row *")
    fill_address(out.prefix, prefix.network_address)
    out.rev_nat_id, out.family, out.prefix_len = row.rev_nat_id, prefix.version, prefix.prefixlen
    if there:
        assert inner.lib.fwd_source_range_upsert(inner.dp, out, inner.error) == 0
    else:
        assert inner.lib.fwd_source_range_delete(inner.dp, out) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(range_rows, max_size=10, unique=True),
    st.lists(range_rows, max_size=6, unique=True),
    st.lists(st.tuples(st.integers(1, 2), clients), min_size=1, max_size=20),
    st.booleans(),
)
def test_a_client_is_allowed_when_one_range_holds_it(
    inner: Services,
    gone: list[SourceRangeRow],
    rows: list[SourceRangeRow],
    asked: list[tuple[int, Address]],
    restart: bool,
) -> None:
    """Any ranges, some taken away again, before and after an attach: as ipaddress says."""
    for row in {*gone, *rows}:
        write(inner, row, there=True)
    for row in set(gone) - set(rows):
        write(inner, row, there=False)
    if restart:
        inner.restart()
    for number, client in asked:
        expected = any(
            row.rev_nat_id == number
            and row.prefix.version == client.version
            and client in row.prefix
            for row in rows
        )
        assert inner.lib.lb_source_allowed(inner.lb, number, inner.addr(client)) == expected
    for row in rows:
        write(inner, row, there=False)


VIP = ip_address("198.51.100.10")


def outside(inner: Services, port: int, proto: int) -> int:
    """The rev_nat_id of what traffic from outside finds, 0 = nothing."""
    be16 = (port & 255) << 8 | port >> 8
    found = inner.lib.lb_lookup_outside(inner.lb, inner.addr(VIP), be16, proto)
    return 0 if found == inner.ffi.NULL else int(found.rev_nat_id)


def test_outside_sees_the_external_scope_and_then_the_wildcard(inner: Services) -> None:
    """Pods never find the wildcard, traffic from outside never the internal scope."""
    two = 32 << 8
    rows = [
        ServiceRow(VIP, 80, 6, 0, two, 1),
        ServiceRow(VIP, 81, 6, 1, two, 2),
        ServiceRow(VIP, 0, 0, 0, 64, 3),
    ]
    for row in rows:
        assert inner.service_upsert(row)
    assert [outside(inner, port, proto) for port, proto in ((80, 6), (81, 6), (80, 17))] == [
        1,
        3,
        3,
    ]
    assert inner.lookup(VIP, 82, 6) is None
    for row in rows:
        inner.service_delete(row)
    assert outside(inner, 80, 6) == 0


def test_a_place_gives_its_backend_while_that_takes_connections(inner: Services) -> None:
    """The place is the hash by the table's size; also after an attach, which keeps the table."""
    service = ServiceRow(VIP, 80, 6, 0, 64, 5, 0, (1, 2))
    for number, state in ((1, 0), (2, 1)):
        inner.backend_upsert(BackendRow(number, ip_address(f"10.0.0.{number}"), 80, 6, state))
    assert inner.service_upsert(service)
    ids = inner.ffi.new("uint32_t[]", [1 + n % 2 for n in range(MAGLEV_SIZE)])
    assert inner.lib.fwd_maglev_upsert(inner.dp, 5, ids, inner.error) == 0
    inner.restart()
    found = inner.lookup(VIP, 80, 6)
    for value in (0, 1, 2, MAGLEV_SIZE, MAGLEV_SIZE + 1, 0xFFFFFFFF):
        backend = inner.lib.lb_maglev(inner.lb, found, value)
        active = value % MAGLEV_SIZE % 2 == 0
        assert (backend != inner.ffi.NULL) == active
        assert not active or backend.id == 1
    assert inner.lib.fwd_maglev_delete(inner.dp, 5) == 1
    assert inner.lib.lb_maglev(inner.lb, found, 0) == inner.ffi.NULL
    inner.service_delete(service)


def test_networks_of_both_families_do_not_meet(inner: Services) -> None:
    """::/0 lets no IPv4 client in, nor 0.0.0.0/0 an IPv6 one."""
    for text, other in (("::/0", "10.0.0.1"), ("0.0.0.0/0", "fd00::1")):
        row = SourceRangeRow(1, ip_network(text))
        write(inner, row, there=True)
        assert not inner.lib.lb_source_allowed(inner.lb, 1, inner.addr(ip_address(other)))
        write(inner, row, there=False)
