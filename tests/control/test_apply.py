"""Applying worlds: the difference, its order, and all or nothing."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address as ip
from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.control import apply as apply_module
from fwd.control.apply import apply, diff, purge_connections, purge_services
from fwd.control.compile import compile_world
from fwd.control.policy import DIRECTIONS
from fwd.datapath.binding import Datapath, Packet
from fwd.datapath.errors import DatapathError
from fwd.model.rows import (
    BackendRow,
    EndpointRow,
    LxcRow,
    MaglevRow,
    Params,
    PeerRow,
    PolicyRow,
    SourceRangeRow,
)
from tests.control.test_policy import IDENTITIES, edges, make_node, rule_rows
from tests.control.worlds import BASE as BASE_TEXT
from tests.control.worlds import node_file

SMALL = Params(ct_tcp=16, ct_any=16, ipcache=64, endpoints=16, lxc=16, policy=4096, peers=16,
               fragments=16, events=16, services=8, backends=8, slots=8, source_ranges=4,
               maglev=2)  # fmt: skip


def small(node):
    """The node's world, in small tables."""
    return replace(compile_world(node), params=SMALL)


def contents(dp):
    """Everything that `apply` writes, without counters."""
    tables = (dp.endpoints(), dp.lxcs(), dp.ipcache(), dp.policies(), dp.peers(),
              dp.services(), dp.backends(), dp.source_ranges())  # fmt: skip
    return [dp.settings, *(set(table) for table in tables)]


@contextmanager
def datapath(world=None):
    """A datapath that holds ``world``."""
    with Datapath.create(SMALL) as dp:
        if world is not None:
            apply(dp, diff(None, world))
        yield dp


BASE = small(node_file())
OTHER = small(
    node_file(
        replace=("{name: a, id: 10, identity: 100", "{name: a, id: 10, identity: 101"),
        ipcache="- {prefix: 10.0.2.5, identity: 200, tunnel_endpoint: 192.0.2.2}",
        policy="- {endpoint: a, direction: egress, action: deny, proto: tcp, port: 1-99}",
        features="{fragments: false}",
        services="- {name: s, frontend: 10.96.0.1, port: 80, backends: [{ip: 10.0.2.5, port: 1}]}",
    )
)
EMPTY = small(node_file(replace=(BASE_TEXT[BASE_TEXT.index("endpoints:") :], "")))


PAIRS = [(BASE, OTHER), (OTHER, BASE), (BASE, EMPTY), (EMPTY, OTHER), (OTHER, EMPTY), (None, OTHER)]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_applying_a_difference_equals_starting_anew(old, new):
    """From any world to another: the tables end as if they had held nothing before."""
    with datapath(old) as dp, datapath(new) as fresh:
        report = apply(dp, diff(old, new))
        assert contents(dp) == contents(fresh)
        assert report.upserted + report.deleted == len(diff(old, new).steps)


def test_no_difference_makes_no_steps():
    """The same world again writes no row."""
    assert diff(BASE, BASE).steps == ()
    assert diff(BASE, BASE).gone_addrs == ()


def test_monitor_settings_survive():
    """Who listens is not the node file's business."""
    with datapath(BASE) as dp:
        dp.set_settings(replace(dp.settings, monitor_mask=7, monitor_aggregation=3))
        apply(dp, diff(BASE, OTHER))
        assert (dp.settings.monitor_mask, dp.settings.monitor_aggregation) == (7, 3)
        assert not dp.settings.fragments


def passing(flows, dp):
    """The flows that pass now."""
    return {flow for flow in flows if not dp.policy_lookup(*flow)[0]}


@settings(max_examples=40)
@given(
    st.lists(rule_rows(), max_size=5),
    st.lists(rule_rows(), max_size=5),
    st.booleans(),
    st.booleans(),
)
def test_no_step_allows_what_neither_world_allows(before, after, was_enforced, is_enforced):
    """Stop after any step: a flow that passes then passes in the old or in the new world."""
    nodes = (
        make_node(before, egress=was_enforced),
        make_node(after, egress=is_enforced),
    )
    old, new = map(small, nodes)
    flows = [
        (10, direction, identity, proto, port)
        for direction in DIRECTIONS.values()
        for identity in IDENTITIES
        for proto in (6, 17, 1)
        for port in sorted({*edges(nodes[0]), *edges(nodes[1])})
    ]
    with datapath(old) as dp, datapath(new) as target:
        allowed = passing(flows, dp) | passing(flows, target)
        for op in diff(old, new).steps:
            apply_module._write(dp, op)
            assert passing(flows, dp) <= allowed
        assert passing(flows, dp) == passing(flows, target)


def test_too_many_rows_are_refused_before_the_first_write():
    """A world that does not fit changes nothing, and the error says which table and how many."""
    rows = "\n".join(f"- {{prefix: 10.9.0.{i}, identity: 9}}" for i in range(64))
    large = small(node_file(ipcache=rows))
    with datapath(BASE) as dp:
        before = contents(dp)
        with pytest.raises(DatapathError, match=r"ipcache table holds \d+ rows and 75 are needed"):
            apply(dp, diff(BASE, large))
        assert contents(dp) == before


class Failing:
    """A datapath whose n-th write is refused."""

    def __init__(self, dp, n):
        self.dp, self.left = dp, n

    def __getattr__(self, name):
        found = getattr(self.dp, name)
        if not name.endswith(("_upsert", "_delete")):
            return found

        def write(row):
            self.left -= 1
            if self.left == 0:
                message = "refused"
                raise DatapathError(message)
            return found(row)

        return write


@pytest.mark.parametrize("position", range(1, len(diff(OTHER, EMPTY).steps) + 1))
def test_a_refused_row_takes_back_what_was_written(position):
    """Whichever write fails, rows and settings are as before."""
    with datapath(OTHER) as dp:
        before = contents(dp)
        with pytest.raises(DatapathError, match="refused"):
            apply(Failing(dp, position), diff(OTHER, EMPTY))
        assert contents(dp) == before


def test_addresses_that_lose_their_endpoint_are_gone():
    """A removed pod's addresses and those of a pod with a new id are named; the node's never."""
    pod = {ip("10.0.0.10"), ip("fd00::10")}
    assert set(diff(BASE, EMPTY).gone_addrs) == pod
    renamed = small(node_file(replace=("id: 10,", "id: 11,")))
    assert set(diff(BASE, renamed).gone_addrs) == pod
    assert diff(BASE, OTHER).gone_addrs == ()


def test_capacity_that_cannot_change_is_noted():
    """Conntrack keeps its size while it lives; the report says so."""
    larger = replace(BASE, params=replace(SMALL, ct_tcp=1024))
    with datapath(BASE) as dp:
        report = apply(dp, diff(BASE, larger))
    (note,) = report.notes
    assert note.startswith("conntrack.capacity.tcp: stays 16 until the service is stopped")
    assert note.endswith(", not 1024")


def test_purge_forgets_an_address_and_nothing_else():
    """Connections of a gone address go, those of others stay."""
    world = small(node_file())
    with datapath(world) as dp:
        mac = world.endpoints[0].node_mac + world.endpoints[0].mac
        for target in ("10.0.2.5", "10.0.2.6"):
            udp = bytes.fromhex("0035003500080000")
            head = bytes.fromhex("4500001c00000000401100000a00000a") + ip(target).packed
            dp.run(0, [Packet(mac + b"\x08\0" + head + udp, 10)])
        assert {str(row.saddr) for row in dp.ct(tcp=False)} == {"10.0.2.5", "10.0.2.6"}
        assert purge_connections(dp, [ip("10.0.2.5")]) == 2
        assert {str(row.saddr) for row in dp.ct(tcp=False)} == {"10.0.2.6"}


def service(*backends, port=80, **fields):
    """A small world with one service of these (address, state) backends."""
    rows = ", ".join(f"{{ip: {one}, port: 8080, state: {state}}}" for one, state in backends)
    extra = "".join(f", {key}: {value}" for key, value in fields.items())
    row = f"- {{name: s, frontend: 10.96.0.1, port: {port}, backends: [{rows}]{extra}}}"
    return small(node_file(services=row))


A, B = ("10.0.2.5", "active"), ("10.0.2.6", "active")


def test_backends_come_before_the_services_that_name_them_and_go_after():
    """At no step a slot names a backend that is not there."""
    worlds = [EMPTY, service(A), service(A, B), service(B), service(B, port=81), EMPTY]
    with datapath(EMPTY) as dp:
        for old, new in pairwise(worlds):
            for op in diff(old, new).steps:
                apply_module._write(dp, op)
                named = {number for row in dp.services() for number in row.backends}
                assert named <= {row.id for row in dp.backends()}
            assert set(dp.services()) == set(new.services)
            assert set(dp.backends()) == set(new.backends)


SHRINKS = [
    (service(A, B), service(B), True),
    (service(A), service(A, B), False),
    (service(A), service((A[0], "terminating")), False),
    (service(A), service(A, port=81), True),
    (service(A), EMPTY, True),
    (EMPTY, service(A), False),
    (service(A), service(A, flags="[affinity]", affinity_timeout_s=5), False),
]


@pytest.mark.parametrize(("old", "new", "expected"), SHRINKS)
def test_what_takes_connections_away_is_told(old, new, expected):
    """A service or backend that goes does; one that drains, or comes, does not."""
    with datapath(old) as dp:
        assert apply(dp, diff(old, new)).services_shrank == expected


def test_slots_are_counted_before_the_first_write():
    """Too many slots in small services are refused like any other row."""
    rows = "\n".join(
        f"- {{name: s, frontend: 10.96.0.1, port: {port}, backends: "
        "[{ip: 10.0.2.5, port: 1}, {ip: 10.0.2.6, port: 1}]}"
        for port in range(1, 6)
    )
    large = small(node_file(services=rows))
    with datapath(BASE) as dp:
        before = contents(dp)
        with pytest.raises(DatapathError, match="slot table holds 8 rows and 10 are needed"):
            apply(dp, diff(BASE, large))
        assert contents(dp) == before


def test_purge_services_forgets_what_has_lost_its_backend():
    """Of two flows to two backends, the one of the removed backend goes, entry by entry."""
    old = service(A, B)
    with datapath(old) as dp:
        mac = old.endpoints[0].node_mac + old.endpoints[0].mac
        head = bytes.fromhex("4500002800000000400600000a00000a") + ip("10.96.0.1").packed
        for sport in range(1, 5):
            ports = sport.to_bytes(2, "big") + (80).to_bytes(2, "big")
            tcp = ports + bytes(8) + bytes.fromhex("5002000000000000")
            dp.run(0, [Packet(mac + b"\x08\0" + head + tcp, 10)])
        flows = [row for row in dp.ct(tcp=True) if not row.tuple_flags & 4]
        assert {str(row.saddr) for row in flows} == {A[0], B[0]}
        apply(dp, diff(old, service(B)))
        assert purge_services(dp) > 0
        left = [*dp.ct(tcp=True), *dp.ct(tcp=False)]
        assert left
        assert not any(str(row.saddr) == A[0] for row in left)
        assert purge_services(dp) == 0


ONE = service(A, B).services[0]
TOO_MANY = {
    "endpoint": {"endpoints": [EndpointRow(100 + n, 9, n, bytes(6), bytes(6)) for n in range(20)]},
    "lxc": {"lxc": [LxcRow(ip(f"10.0.0.{n}"), 10) for n in range(100, 120)]},
    "policy": {"policy": [PolicyRow(10, 1, 9, 6, n, 24, deny=False, rule_id=1)
                          for n in range(1, 4099)]},
    "peer": {"peers": [PeerRow(ip(f"192.0.2.{n}")) for n in range(100, 120)]},
    "service": {"services": [replace(ONE, port=n, backends=()) for n in range(1, 10)]},
    "backend": {"backends": [BackendRow(n, ip("10.0.2.5"), n, 6) for n in range(1, 10)]},
    "source_range": {"source_ranges": [SourceRangeRow(n, ip_network("10.0.0.0/8"))
                                       for n in range(1, 6)]},
    "maglev": {"maglev": [MaglevRow(n, (1,) * 1021) for n in range(1, 4)]},
}  # fmt: skip


@pytest.mark.parametrize("table", TOO_MANY)
def test_every_table_refuses_what_it_cannot_hold(table):
    """The error names the table; neither its own rows nor those before it were changed."""
    ((section, rows),) = TOO_MANY[table].items()
    large = replace(OTHER, **{section: (*getattr(OTHER, section), *rows)})
    with datapath(OTHER) as dp:
        before = contents(dp)
        with pytest.raises(DatapathError, match=rf"^the {table} table holds \d+ rows and \d+ are "):
            apply(dp, diff(OTHER, large))
        assert contents(dp) == before
        assert dp.stats(table).failures == 0
