"""fwd/datapath/tables.py and convert.py: rows go in, and come out as they went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fwd.datapath.binding import Datapath
from fwd.datapath.errors import DatapathError
from fwd.model.rows import EndpointRow, IpcacheRow, LxcRow, Params, PeerRow, PolicyRow

PARAMS = Params(ct_tcp=64, ct_any=64, ipcache=2048, endpoints=8, lxc=16, policy=64, peers=8)
MACS = st.binary(min_size=6, max_size=6)
IDENTITIES = st.integers(0, 2**32 - 1)
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda a: a.ipv4_mapped is None)


def networks(addr, length: int):
    """The prefix of an address, any length."""
    return ip_network((addr, length % (addr.max_prefixlen + 1)), strict=False)


NETWORKS = st.builds(networks, ADDRESSES, st.integers(0, 128))
V4 = st.ip_addresses(v=4).filter(lambda a: int(a) != 0)
ENDPOINTS = st.builds(EndpointRow, st.integers(1, 65535), IDENTITIES, IDENTITIES, MACS, MACS)
IPCACHE = st.builds(IpcacheRow, NETWORKS, IDENTITIES, st.none() | V4, st.booleans())
PEERS = st.builds(PeerRow, V4, st.none() | st.integers(0, 2**24 - 1), IDENTITIES)


@pytest.fixture
def dp() -> Iterator[Datapath]:
    """An empty datapath."""
    with Datapath.create(PARAMS) as one:
        yield one


SAME_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@SAME_FIXTURE
@given(row=ENDPOINTS)
def test_endpoint_row_round_trip(dp: Datapath, row: EndpointRow) -> None:
    """Upsert, dump, delete."""
    dp.endpoint_upsert(row)
    assert list(dp.endpoints()) == [row]
    assert dp.endpoint_delete(row.lxc_id)
    assert not dp.endpoint_delete(row.lxc_id)


@SAME_FIXTURE
@given(row=IPCACHE)
def test_ipcache_row_round_trip(dp: Datapath, row: IpcacheRow) -> None:
    """Upsert, dump, look up its first address, delete."""
    dp.ipcache_upsert(row)
    assert list(dp.ipcache()) == [row]
    assert dp.ipcache_lookup(row.prefix.network_address) == row
    assert dp.ipcache_delete(row.prefix)
    assert dp.ipcache_lookup(row.prefix.network_address) is None


@SAME_FIXTURE
@given(row=PEERS)
def test_peer_row_round_trip(dp: Datapath, row: PeerRow) -> None:
    """Upsert, dump, delete; identity only means something with a fixed VNI but is kept."""
    dp.peer_upsert(row)
    assert list(dp.peers()) == [row]
    assert dp.peer_delete(row.ip)


@pytest.mark.parametrize(
    "row",
    [
        LxcRow(ip_address("10.0.0.1"), 7),
        LxcRow(ip_address("fd00::1"), 65535),
        LxcRow(ip_address("10.0.0.2"), 0, host=True),
        LxcRow(ip_address("10.0.0.3"), 0, host=True, router=True),
    ],
)
def test_lxc_row_round_trip(dp: Datapath, row: LxcRow) -> None:
    """Pods', the node's and the router's addresses."""
    dp.lxc_upsert(row)
    assert list(dp.lxcs()) == [row]
    assert dp.lxc_delete(row.addr)


def test_policy_row_round_trip_and_lookup(dp: Datapath) -> None:
    """The entry that decides comes back with its counters at zero."""
    row = PolicyRow(7, 2, 300, 6, 80, 24, deny=False, rule_id=9)
    dp.policy_upsert(row)
    assert list(dp.policies()) == [row]
    assert dp.policy_lookup(7, 2, 300, 6, 80) == (0, row, 2)
    assert dp.policy_lookup(7, 2, 300, 6, 81) == (133, None, 0)
    assert dp.policy_delete(replace(row, rule_id=1))


def test_dumps_page_through_more_rows_than_a_page(dp: Datapath) -> None:
    """1,300 prefixes: each is seen once, by the iterator and by pages of seven."""
    rows = {ip_network(f"10.{i >> 8}.{i & 255}.0/24") for i in range(1300)}
    for prefix in rows:
        dp.ipcache_upsert(IpcacheRow(prefix, 5))
    assert sorted(row.prefix for row in dp.ipcache()) == sorted(rows)
    seen, cursor = [], 0
    while True:
        page, cursor = dp.ipcache_page(cursor, 7)
        assert len(page) <= 7
        seen += [row.prefix for row in page]
        if cursor == 0:
            break
    assert sorted(seen) == sorted(rows)


def test_full_table_is_an_error_that_names_it(dp: Datapath) -> None:
    """Nothing is evicted from a table that control owns."""
    rows = [EndpointRow(lxc_id, 1, 1, bytes(6), bytes(6)) for lxc_id in range(1, 10)]
    for row in rows[: PARAMS.endpoints]:
        dp.endpoint_upsert(row)
    with pytest.raises(DatapathError, match="endpoint"):
        dp.endpoint_upsert(rows[PARAMS.endpoints])
    assert dp.stats("endpoint").count == dp.stats("endpoint").cap == len(list(dp.endpoints()))


def test_stats_of_an_unknown_table_is_a_key_error(dp: Datapath) -> None:
    """The names are fixed."""
    with pytest.raises(KeyError):
        dp.stats("arp")
