"""The storage of conntrack: any history against the slow twin, full maps, crowded lines, hashes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.csrc.tables.ct_driver import CtDriver, one_driver
from tests.csrc.tables.ct_flows import PACKETS, ROUTER, A, N, begin, tcp
from tests.models.ct import CtTwin, Entry, Key, Limits, Packet, State

NEW, ESTABLISHED = 0, 1
SYN, RST, ACK = 2, 4, 16
TCP, UDP = 6, 17
FULL = 155
LIMITS = Limits()


class CtMachine(RuleBasedStateMachine):
    """Packets, time, sweeps, purges and re-attachment in any order, both maps small."""

    @initialize(cap=st.sampled_from([1, 4, 12, 40]))
    def start(self, cap: int) -> None:
        """Begin with empty maps of ``cap`` entries."""
        self.cap = cap
        self.now = 1
        self.ct = CtDriver(cap, LIMITS)
        self.twin = CtTwin(LIMITS)
        self.evictions = self.failures = 0

    def teardown(self) -> None:
        """Give the arena back."""
        if hasattr(self, "ct"):
            self.ct.close()

    @rule(
        packet=PACKETS,
        hook=st.sampled_from(["egress", "ingress", "egress", "ingress", "service"]),
        scope=st.sampled_from(["bidir", "bidir", "bidir", "forward", "reverse"]),
        flags=st.sampled_from([0, 0, 8, 32, 1024]),
    )
    def packet(self, packet: Packet, hook: str, scope: str, flags: int) -> None:
        """Look a packet up; create its entry when it is new."""
        got = self.ct.lookup(packet, hook, scope, self.now)
        status, key, monitor, state = self.twin.lookup(packet, hook, scope, self.now)
        assert got[:3] == (status, key, monitor)
        if status != NEW:
            assert got[3] == state
            return
        state = State(src_identity=9, backend_id=5, rev_nat_id=2, ifindex=3, flags=flags)
        result = self.ct.create(key, hook, packet.len, self.now, state)
        self.settle(result, self.twin.planned(key, hook, packet.len, self.now, state))

    def settle(self, result: int, planned: list[tuple[Key, Entry]]) -> None:
        """Write to the twin what the C side could write, checking every eviction."""
        after = {**self.ct.rows(tcp=True), **self.ct.rows(tcp=False)}
        for position, (key, entry) in enumerate(planned):
            entries = self.twin.map_of(tcp=key.proto == TCP)
            if key not in entries and len(entries) == self.cap:
                victims = self.twin.allowed_victims(self.now, tcp=key.proto == TCP)
                if not victims:
                    self.failures += 1
                    if position + 1 < len(planned):
                        continue  # a companion is left out
                    assert result == FULL
                    return
                self.evict(victims, after, keep={k for k, _ in planned[position:]})
            self.twin.entries[key] = entry
        assert result == 0

    def evict(self, victims: set[Key], after: dict[Key, Entry], keep: set[Key]) -> None:
        """Forget the one entry that went, which must be an allowed one."""
        gone = [key for key in victims if key not in after] or [k for k in victims if k in keep]
        assert gone, "a full map lost an entry that it may not lose"
        self.evictions += self.twin.entries[gone[0]].expires >= self.now
        del self.twin.entries[gone[0]]

    @rule(seconds=st.sampled_from([1, 5, 6, 11, 30, 61, 8001]))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        """Collect what has expired, a few entries a call."""
        assert self.ct.walk(self.ct.lib.fwd_ct_sweep, self.now) == self.twin.sweep(self.now)

    @rule(addr=st.sampled_from([A, N, ROUTER]))
    def purge(self, addr: bytes) -> None:
        """Forget an address."""
        wanted = self.ct.ffi.new("struct fwd_addr *", {"b": addr})
        assert self.ct.walk(self.ct.lib.fwd_ct_purge_addr, wanted) == self.twin.purge(addr)

    @rule()
    def reattach(self) -> None:
        """Restart: nothing is torn, nothing is lost."""
        assert self.ct.reattach() == 0

    @invariant()
    def same_entries(self) -> None:
        """Both sides hold the same entries with the same contents, and count them."""
        if not hasattr(self, "ct"):
            return
        for is_tcp in (True, False):
            assert self.ct.rows(tcp=is_tcp) == self.twin.map_of(tcp=is_tcp)
            assert self.ct.stats(tcp=is_tcp).count == len(self.twin.map_of(tcp=is_tcp))
        both = [self.ct.stats(tcp=is_tcp) for is_tcp in (True, False)]
        assert sum(stats.evictions for stats in both) == self.evictions
        assert sum(stats.failures for stats in both) == self.failures


CtMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, print_blob=True
)
TestCtMachine = CtMachine.TestCase


def test_ct_entry_expires_after_its_last_second() -> None:
    """At expires_s an entry stays, also in a full map; a second later it goes."""
    small = CtDriver(1, LIMITS)
    key = begin(small, Packet(A, N, UDP, 5000, 53), now=100)
    small.lookup(Packet(N, A, UDP, 53, 5000), "ingress", "bidir", 100)  # now it is established
    assert list(small.rows(tcp=False)) == [key]
    assert small.walk(small.lib.fwd_ct_sweep, 160) == 0
    assert small.create(key._replace(sport=1), "service", 60, 160, State()) == FULL
    assert small.create(key._replace(sport=1), "service", 60, 161, State()) == 0
    assert list(small.rows(tcp=False)) == [key._replace(sport=1)]
    small.close()


def test_ct_full_map_keeps_established_connections() -> None:
    """A flood of SYNs ten times the map's size costs no established connection its entry."""
    ct = CtDriver(256, LIMITS)
    kept = set()
    for port in range(200):
        kept.add(begin(ct, tcp(SYN, sport=port + 1)))
        ct.lookup(tcp(SYN | ACK, sport=port + 1, back=True), "ingress", "bidir", 101)
        ct.lookup(tcp(ACK, sport=port + 1), "egress", "bidir", 101)
    for port in range(2560):
        packet = Packet(ROUTER, N, TCP, port, 81, tcp_flags=SYN)
        _, key, _, _ = ct.lookup(packet, "egress", "bidir", 101)
        ct.create(key, "egress", 60, 101, State())
    assert kept <= set(ct.rows(tcp=True, page=300))
    stats = ct.stats(tcp=True)
    assert stats.count == 256
    assert stats.evictions + stats.failures == 2560 - 56
    assert stats.evictions > stats.failures
    ct.close()


def test_ct_full_map_takes_a_refused_connection_for_over() -> None:
    """SYNs answered by RST make room for each other: no established flow is lost, none refused."""
    ct = CtDriver(64, LIMITS)
    kept = begin(ct, tcp(SYN, sport=1))
    ct.lookup(tcp(SYN | ACK, sport=1, back=True), "ingress", "bidir", 101)
    ct.lookup(tcp(ACK, sport=1), "egress", "bidir", 101)
    for port in range(2, 642):
        begin(ct, tcp(SYN, sport=port), now=101)
        ct.lookup(tcp(RST, sport=port, back=True), "ingress", "bidir", 101)
    assert kept in ct.rows(tcp=True, page=300)
    stats = ct.stats(tcp=True)
    assert (stats.count, stats.evictions, stats.failures) == (64, 640 - 63, 0)
    ct.close()


def test_ct_sweep_frees_a_stuck_hand() -> None:
    """One entry that may go among 1023 established flows: refused until a sweep has found it."""
    ct = CtDriver(1024, LIMITS)
    for port in range(1, 1025):
        key = begin(ct, tcp(SYN, sport=port))
        if port != 1000:
            ct.lookup(tcp(SYN | ACK, sport=port, back=True), "ingress", "bidir", 101)
            ct.lookup(tcp(ACK, sport=port), "egress", "bidir", 101)
    fresh = key._replace(dport=81)
    assert ct.create(fresh, "egress", 60, 101, State()) == FULL
    assert ct.walk(ct.lib.fwd_ct_sweep, 101, budget=100) == 0
    assert ct.create(fresh, "egress", 60, 101, State()) == 0
    assert (ct.stats(tcp=True).evictions, ct.stats(tcp=True).failures) == (1, 1)
    ct.close()


def test_ct_lines_overflow_and_recover() -> None:
    """Thousands of flows are all found, and all gone after a sweep, with lines overflowing."""
    ct = CtDriver(4096, LIMITS)
    flows = [tcp(SYN, sport=port) for port in range(4096)]
    for packet in flows:
        begin(ct, packet)
    assert all(ct.lookup(p, "egress", "bidir", 101)[0] == ESTABLISHED for p in flows)
    lines = ct.lib.ct_map_lines(ct.dp.ct.tcp)[0 : ct.dp.ct.tcp.n_lines]
    assert sum(line.overflow for line in lines) > 0
    assert ct.walk(ct.lib.fwd_ct_sweep, 1000, budget=64) == 4096 + 1
    assert ct.lookup(flows[0], "egress", "bidir", 1000)[0] == NEW
    assert ct.rows(tcp=True) == {}
    lines = ct.lib.ct_map_lines(ct.dp.ct.tcp)[0 : ct.dp.ct.tcp.n_lines]
    assert sum(line.overflow + sum(line.tag) for line in lines) == 0
    ct.close()


@given(st.binary(min_size=32, max_size=32), st.integers(0, 65535), st.integers(0, 65535))
@settings(max_examples=100, deadline=None)
def test_ct_hash_is_symmetric_and_keyed(addrs: bytes, sport: int, dport: int) -> None:
    """A tuple and its reverse share a hash, another seed gives another one."""
    driver = one_driver()
    packet = Packet(addrs[:16], addrs[16:], UDP, sport, dport)
    back = Packet(addrs[16:], addrs[:16], UDP, dport, sport)
    _, one, _ = driver.load(packet)
    _, two, _ = driver.load(back)
    assert driver.lib.ct_hash(1, one) == driver.lib.ct_hash(1, two)
    assert driver.lib.ct_hash(1, one) != driver.lib.ct_hash(2, one)
