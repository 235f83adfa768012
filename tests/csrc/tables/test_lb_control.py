"""csrc/tables/lb_control.c: rows in and out, refusals, and whose connections a change ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.datapath.binding import Datapath
from fwd.datapath.errors import DatapathError
from fwd.model.rows import BackendRow, Params, ServiceRow
from tests.csrc.tables.lb_driver import Services

PARAMS = Params(ct_tcp=64, ct_any=64, ipcache=16, endpoints=4, lxc=16, policy=16, peers=4,
                fragments=4, events=16, services=4, backends=4, slots=8, affinity=4)  # fmt: skip
VIP, VIP6 = ip_address("10.96.0.1"), ip_address("fd00::96")
WEB = ServiceRow(VIP, 80, 6, 0, 16, 11, 30, (1, 2))
ROWS = (WEB, replace(WEB, scope=1, backends=(2,)), ServiceRow(VIP6, 53, 17, 0, 0, 12))
BACKENDS = (
    BackendRow(1, ip_address("10.0.0.1"), 8080, 6),
    BackendRow(2, ip_address("fd00::2"), 0, 17, 3),
)


@pytest.fixture
def dp() -> Iterator[Datapath]:
    """Small tables."""
    with Datapath.create(PARAMS) as made:
        yield made


def test_rows_come_back_as_written(dp: Datapath) -> None:
    """Every field of services and backends crosses both ways; a rewrite replaces."""
    for backend in BACKENDS:
        dp.backend_upsert(backend)
    for row in ROWS:
        dp.service_upsert(row)
    assert set(dp.services()) == set(ROWS)
    assert set(dp.backends()) == set(BACKENDS)
    dp.service_upsert(replace(WEB, backends=(2,), flags=0))
    assert replace(WEB, backends=(2,), flags=0) in set(dp.services())
    assert dp.stats("slot").count == 2
    assert dp.service_delete(WEB)
    assert not dp.service_delete(WEB)
    assert dp.backend_delete(1)
    assert not dp.backend_delete(1)
    assert set(dp.services()) == set(ROWS[1:])


REFUSED = [
    (replace(WEB, rev_nat_id=0), "10.96.0.1 port 80 protocol 6: it needs a rev_nat_id"),
    (replace(WEB, scope=2), "one of two scopes"),
    (replace(WEB, backends=tuple(range(1, 10))), "the table of backend slots is full"),
]


@pytest.mark.parametrize(("row", "text"), REFUSED)
def test_service_refuses(dp: Datapath, row: ServiceRow, text: str) -> None:
    """What cannot be written is named, and nothing of it is."""
    with pytest.raises(DatapathError, match=text):
        dp.service_upsert(row)
    assert list(dp.services()) == []
    assert dp.stats("slot").count == 0


def test_full_tables_say_so(dp: Datapath) -> None:
    """One row too many of either table is refused; replacing one still works."""
    for number in range(1, 5):
        dp.service_upsert(replace(WEB, port=number, rev_nat_id=number, backends=()))
        dp.backend_upsert(replace(BACKENDS[0], id=number))
    with pytest.raises(DatapathError, match="the table of services is full"):
        dp.service_upsert(WEB)
    with pytest.raises(DatapathError, match=r"10\.0\.0\.1 port 8080: the table is full with 4"):
        dp.backend_upsert(replace(BACKENDS[0], id=9))
    dp.service_upsert(replace(WEB, port=1, rev_nat_id=1, backends=(1,)))
    dp.backend_upsert(replace(BACKENDS[0], id=4, state=1))


@pytest.mark.parametrize("row", [replace(BACKENDS[0], id=0), replace(BACKENDS[0], state=4)])
def test_backend_refuses(dp: Datapath, row: BackendRow) -> None:
    """A backend has an id and a state that exists."""
    with pytest.raises(DatapathError, match="needs an id and a known state"):
        dp.backend_upsert(row)


# ---- whose connections a change ends ----

ADDRS = [ip_address("10.0.0.1"), ip_address("10.0.0.2")]
FRONTENDS = [(VIP, 80, 6), (VIP, 80, 17), (ip_address("10.96.0.2"), 80, 6)]
backend_rows = [
    BackendRow(1 + n, addr, port, proto)
    for n, (addr, port, proto) in enumerate(
        (addr, port, proto) for addr in ADDRS for port in (80, 0) for proto in (6, 17)
    )
]
slots = st.lists(st.integers(1, 8), max_size=3, unique=True)
flows = st.tuples(
    st.integers(0, 2), st.sampled_from(ADDRS), st.sampled_from([80, 81]), st.booleans()
)


def explained(services: dict[int, tuple[int, ...]], flow: tuple[int, object, int, bool]) -> bool:
    """Whether a service still leads where a tracked flow goes; the slow way."""
    number, addr, port, companion = flow
    for index, ids in services.items():
        same_id = index + 1 == number + 1
        if not same_id:
            continue
        for row in backend_rows:
            to = row.port or FRONTENDS[index][1]
            if row.id in ids and row.addr == addr and (companion or to == port):
                return True
    return False


@settings(max_examples=150)
@given(
    kept=st.dictionaries(st.integers(0, 2), slots, max_size=3),
    flow=flows,
    scope=st.integers(0, 1),
)
def test_flows_are_explained_by_the_services_that_are_left(
    kept: dict[int, list[int]], flow: tuple[int, object, int, bool], scope: int
) -> None:
    """A flow stays exactly when its service, in either scope, has a slot to its backend."""
    lb = Services(8, 32, 16, 4)
    try:
        for row in backend_rows:
            assert lb.backend_upsert(row)
        for index, ids in kept.items():
            addr, port, proto = FRONTENDS[index]
            assert lb.service_upsert(
                ServiceRow(addr, port, proto, scope, 0, index + 1, 0, tuple(ids))
            )
        number, addr, port, companion = flow
        asked = lb.ffi.new("struct lb_flow *")
        asked.addr = lb.addr(addr)[0]
        asked.port = 0 if companion else (port & 255) << 8 | port >> 8
        asked.rev_nat_id = number + 1
        asked.proto = 0 if companion else FRONTENDS[number][2]
        services = {index: tuple(ids) for index, ids in kept.items()}
        assert lb.lib.lb_has_backend_flow(lb.lb, asked) == explained(services, flow)
    finally:
        lb.close()


def test_a_service_entry_needs_its_service_its_id_and_its_backend() -> None:
    """Each of the three gone, or given another number, ends it; a state change does not."""
    lb = Services(4, 8, 4, 4)
    try:
        assert lb.backend_upsert(BACKENDS[0])
        assert lb.service_upsert(replace(WEB, backends=(1,)))
        flow = lb.ffi.new("struct lb_flow *", {"rev_nat_id": 11, "proto": 6, "port": 80 << 8})
        flow.addr = lb.addr(VIP)[0]
        assert lb.lib.lb_has_service_flow(lb.lb, flow, 1)
        assert not lb.lib.lb_has_service_flow(lb.lb, flow, 2)
        assert lb.backend_upsert(replace(BACKENDS[0], state=1))
        assert lb.lib.lb_has_service_flow(lb.lb, flow, 1)
        assert lb.service_upsert(replace(WEB, rev_nat_id=12, backends=(1,)))
        assert not lb.lib.lb_has_service_flow(lb.lb, flow, 1)
        assert lb.service_upsert(replace(WEB, backends=()))
        assert not lb.lib.lb_has_service_flow(lb.lb, flow, 1)
        assert lb.service_upsert(replace(WEB, backends=(1,)))
        assert lb.lib.fwd_backend_delete(lb.dp, 1)
        assert not lb.lib.lb_has_service_flow(lb.lb, flow, 1)
    finally:
        lb.close()
