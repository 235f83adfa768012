"""csrc/tables/nat.c: ports are unique toward a peer, both halves live and go together."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fwd.datapath.binding import Datapath
from fwd.datapath.packet import PORT_NETDEV, Packet
from fwd.model.enums import Drop
from fwd.model.rows import LxcRow, Params, Settings
from tests.csrc.internal import internal
from tests.csrc.path.build import build
from tests.csrc.tables.region import Region, address, fill_address
from tests.models.nat import Flow, NatModel

NODE, OTHER_NODE = "192.168.56.105", "192.168.56.200"
NO_MAPPING = int(Drop.NO_MAPPING_FOR_NAT_MASQUERADE)
SMALL = Params(ct_tcp=64, ct_any=64, ipcache=16, endpoints=4, lxc=16, events=16, nat=64)


def swapped(port: int) -> int:
    """A port in the other byte order."""
    return int.from_bytes(port.to_bytes(2, "little"), "big")


class Nat:
    """The table under test, spoken to in Python values."""

    def __init__(self, cap: int, seed: int = 1) -> None:
        self.ffi, self.lib = internal()
        self.cap = cap
        self.region = Region("nat_table", self.lib.nat_size(cap))
        self.table = self.region.table
        self.lib.nat_init(self.table, cap, seed)

    def map(self, flow: Flow, behind: str = NODE, now_ns: int = 0) -> tuple[str, int] | int:
        """The mapping of a flow, or the drop reason."""
        to, target = self.ffi.new("struct fwd_addr *"), self.ffi.new("struct nat_target *")
        fill_address(to, ip_address(behind))
        drop = self.lib.nat_map(self.table, self._out(flow), to, now_ns, target)
        return int(drop) or self._target(target)

    def outgoing(self, flow: Flow) -> tuple[str, int] | None:
        """The mapping of a flow, None without."""
        return self._lookup(self._out(flow))

    def incoming(
        self, proto: int, peer: tuple[str, int], own: tuple[str, int]
    ) -> tuple[str, int] | None:
        """Whom an answer is for."""
        return self._lookup(self._tuple(Flow(proto, *peer, *own), 1))

    def reattach(self) -> None:
        """Go on with a copy of the bytes, as the next process does."""
        content, self.region = self.region.content, Region("nat_table", self.region.size)
        self.region.content = content
        self.table = self.region.table
        assert self.lib.nat_validate(self.table, self.region.size, self.cap)

    def stats(self) -> Any:
        """Return ``struct fwd_table_stats``."""
        stats = self.ffi.new("struct fwd_table_stats *")
        self.lib.nat_stats(self.table, stats)
        return stats

    def _tuple(self, flow: Flow, flags: int) -> Any:
        out = self.ffi.new("struct nat_tuple *")
        fill_address(out.saddr, ip_address(flow.saddr))
        fill_address(out.daddr, ip_address(flow.daddr))
        out.sport, out.dport = swapped(flow.sport), swapped(flow.dport)
        out.proto, out.flags = flow.proto, flags
        return out

    def _out(self, flow: Flow) -> Any:
        return self._tuple(flow, 0)

    def _target(self, target: Any) -> tuple[str, int]:
        return str(address(target.addr)), swapped(int(target.port))

    def _lookup(self, key: Any) -> tuple[str, int] | None:
        target = self.ffi.new("struct nat_target *")
        return self._target(target) if self.lib.nat_lookup(self.table, key, target) else None


flows = st.builds(
    Flow,
    proto=st.sampled_from([6, 17]),
    saddr=st.sampled_from(["10.244.0.108", "10.244.0.109"]),
    sport=st.sampled_from([80, 32767, 32768, 40000, 65535]),
    daddr=st.sampled_from(["203.0.113.9", "203.0.113.10"]),
    dport=st.sampled_from([53, 443]),
)


class NatMachine(RuleBasedStateMachine):
    """Any order of packets out and back, with a node that changes its address and restarts."""

    @initialize(cap=st.integers(2, 9), seed=st.integers(0, 2**64 - 1))
    def start(self, cap: int, seed: int) -> None:
        """A table of a few mappings: it is full soon."""
        self.table, self.model = Nat(cap, seed), NatModel(cap)
        self.evictions = 0

    @rule(flow=flows, behind=st.sampled_from([NODE, NODE, OTHER_NODE]))
    def leaves(self, flow: Flow, behind: str) -> None:
        """A packet leaves."""
        allowed = self.model.allowed(flow, behind)
        got = self.table.map(flow, behind)
        assert isinstance(got, tuple)
        assert got[0] == behind
        assert got[1] in allowed
        self.model.map(flow, behind, got[1])

    @rule(flow=flows)
    def is_asked(self, flow: Flow) -> None:
        """The mapping of a flow and its answers, known or not."""
        known = self.model.outgoing(flow)
        assert self.table.outgoing(flow) == known
        own = known or (NODE, 40000)
        peer = (flow.daddr, flow.dport)
        expected = self.model.incoming(flow.proto, peer, own)
        assert self.table.incoming(flow.proto, peer, own) == expected

    @rule()
    def restarts(self) -> None:
        """Attach keeps every mapping; who was used last is forgotten."""
        self.table.reattach()
        order = [flow for flow in self._slots() if flow in self.model.mappings]
        for flow in order:
            self.model.mappings.move_to_end(flow)

    def _slots(self) -> list[Flow]:
        """OUT halves in slot order: touch each and see who the table thinks is oldest."""
        ffi, lib = self.table.ffi, self.table.lib
        dp = ffi.new("struct fwd_dp *")
        dp.nat = self.table.table
        rows, cursor = ffi.new("struct fwd_nat_row[]", 16), ffi.new("uint64_t *")
        count = lib.fwd_nat_dump(dp, cursor, rows, 16)
        assert cursor[0] == 0
        return [
            Flow(
                int(row.proto), str(address(row.saddr)), swapped(int(row.sport)),
                str(address(row.daddr)), swapped(int(row.dport)),
            )
            for row in rows[0:count]
            if row.flags == 0
        ]  # fmt: skip

    @invariant()
    def counts_agree(self) -> None:
        """Two halves a mapping, nothing written beside the table."""
        if not hasattr(self, "table"):
            return
        stats = self.table.stats()
        assert (stats.count, stats.failures) == (2 * len(self.model.mappings), 0)
        assert stats.evictions == self.model.evictions
        assert self.table.region.guards_hold()


TestNat = NatMachine.TestCase
TestNat.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def flow(sport: int, **changes: Any) -> Flow:
    """A flow of curl to a server of the world."""
    return replace(Flow(17, "10.244.0.108", sport, "203.0.113.9", 53), **changes)


def test_nat_keeps_a_port_in_range_and_draws_another_when_it_is_taken() -> None:
    """Two pods with one source port get two, answers tell them apart."""
    table = Nat(16)
    assert table.map(flow(40000)) == (NODE, 40000)
    other = table.map(flow(40000, saddr="10.244.0.109"))
    assert isinstance(other, tuple)
    assert other[1] != 40000
    assert table.incoming(17, ("203.0.113.9", 53), other) == ("10.244.0.109", 40000)
    assert table.incoming(17, ("203.0.113.9", 53), (NODE, 40000)) == ("10.244.0.108", 40000)


def test_nat_is_exhausted_by_one_peer_only() -> None:
    """32768 flows to one server take every port; 167 for the next, another server is no matter."""
    table = Nat(1 << 17)
    ports = {table.map(flow(port)) for port in range(32768, 65536)}
    assert ports == {(NODE, port) for port in range(32768, 65536)}
    assert table.map(flow(80)) == NO_MAPPING
    assert table.map(flow(40000, saddr="10.244.0.109")) == NO_MAPPING
    assert table.map(flow(40000, saddr="10.244.0.109", dport=54)) == (NODE, 40000)
    assert (table.stats().failures, table.stats().evictions) == (2, 0)


def test_nat_gives_up_after_its_tries_though_a_port_is_free() -> None:
    """One free port of 32768: 32 tries seldom find it, and never take another's."""
    table = Nat(1 << 17)
    free = 50000
    for port in range(32768, 65536):
        if port != free:
            table.map(flow(port))
    got = [table.map(flow(40000, saddr=f"10.244.1.{host}")) for host in range(1, 51)]
    assert set(got) <= {NO_MAPPING, (NODE, free)}
    assert got.count((NODE, free)) <= 1
    assert got.count(NO_MAPPING) == table.stats().failures >= 49
    assert table.map(flow(free)) in {NO_MAPPING, (NODE, free)}


def test_nat_without_room_for_two_halves_maps_nothing() -> None:
    """A capacity of one is none."""
    assert Nat(1).map(flow(40000)) == NO_MAPPING


def test_nat_attach_drops_a_half_without_its_other() -> None:
    """A writer killed between the halves leaves nothing that could translate."""
    for half in (0, 1):
        table = Nat(8)
        table.map(flow(40000))
        table.map(flow(40001))
        # tear one half of the first mapping: its slot says that it is being written
        heads = int(table.lib.hashtab_buckets(8)) * 4
        slot = table.ffi.cast("uint8_t *", table.table) + 64 + 64 + heads + half * SLOT_SIZE
        table.ffi.cast("uint32_t *", slot)[1] = 0
        table.reattach()
        assert table.stats().count == 2
        assert table.outgoing(flow(40000)) is None
        assert table.incoming(17, ("203.0.113.9", 53), (NODE, 40000)) is None
        assert table.outgoing(flow(40001)) == (NODE, 40001)


SLOT_SIZE = 88


def test_nat_attach_refuses_another_layout() -> None:
    """A capacity that is not the table's, or a region too short for it."""
    table = Nat(8)
    size = table.region.size
    assert not table.lib.nat_validate(table.table, size, 9)
    assert not table.lib.nat_validate(table.table, size - 1, 8)


def test_nat_sweep_forgets_what_conntrack_forgot() -> None:
    """A mapping lives as long as its connection's entry, however little it is used."""
    with Datapath.create(SMALL) as dp:
        dp.set_settings(Settings(masquerade=True, node_ip=IPv4Address(NODE), ct_any_s=60))
        dp.lxc_upsert(LxcRow(IPv4Address("10.244.0.108"), 7))
        frames = [
            build({"smac": "02:00:00:00:00:01", "dmac": "02:00:00:00:00:02", "src": source,
                   "dst": "203.0.113.9", "udp": {"sport": sport, "dport": 53}})
            for source, sport in ((NODE, 40001), ("10.244.0.108", 40000), ("10.244.0.108", 80))
        ]  # fmt: skip
        dp.run(10**9, [Packet(frame, PORT_NETDEV, to_netdev=True) for frame in frames])
        assert dp.stats("nat").count == 6
        # the pod's packets never passed from-container here, so conntrack knows the node's only
        assert dp.nat_sweep(cursor=0, budget=100) == (2, 0)
        assert {(row.sport, row.dport) for row in dp.nats()} == {(40001, 53), (53, 40001)}
        dp.ct_sweep(tcp=False, now_s=1000, cursor=0, budget=100)
        deleted, cursor = dp.nat_sweep(cursor=0, budget=1)
        assert cursor != 0
        more, cursor = dp.nat_sweep(cursor=cursor, budget=100)
        assert (deleted + more, cursor) == (1, 0)
        assert list(dp.nats()) == []


def test_nat_page_goes_by_cursor() -> None:
    """Pages of one row see every half once."""
    with Datapath.create(SMALL) as dp:
        dp.set_settings(Settings(masquerade=True, node_ip=IPv4Address(NODE)))
        dp.lxc_upsert(LxcRow(IPv4Address("10.244.0.108"), 7))
        frame = build({"smac": "02:00:00:00:00:01", "dmac": "02:00:00:00:00:02",
                       "src": "10.244.0.108", "dst": "203.0.113.9",
                       "udp": {"sport": 80, "dport": 53}})  # fmt: skip
        (outcome,) = dp.run(5, [Packet(frame, PORT_NETDEV, to_netdev=True)])
        first, cursor = dp.nat_page(0, 1)
        second, end = dp.nat_page(cursor, 2)
        assert end == 0
        out, back = sorted((*first, *second), key=lambda row: row.incoming)
        port = int.from_bytes(outcome.frame[34:36], "big")
        assert port >= 32768
        assert (str(out.to_addr), out.to_port, out.sport, out.created_ns) == (NODE, port, 80, 5)
        assert (str(back.to_addr), back.to_port, back.dport) == ("10.244.0.108", 80, port)
