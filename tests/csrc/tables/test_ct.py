"""Conntrack against its slow twin, and the worked rows of datapath reference 3.9 and 8.7."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.csrc.tables.ct_driver import CtDriver
from tests.models.ct import CtTwin, Entry, Key, Limits, Packet, State, load

NEW, ESTABLISHED, REPLY, RELATED = range(4)
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
FULL = 155


def v4(text: str) -> bytes:
    """Return the 16 bytes of an address."""
    addr = ip_address(text)
    return addr.packed if addr.version == 6 else bytes(10) + b"\xff\xff" + addr.packed


A, N, ROUTER = v4("10.244.0.108"), v4("10.244.2.171"), v4("10.244.0.150")
A6, N6 = v4("fd00::108"), v4("fd00::171")
LIMITS = Limits()


def tcp(flags: int, *, back: bool = False, sport: int = 43512) -> Packet:
    """Return a packet of the seed's connection, ``back`` = from nginx."""
    if back:
        return Packet(N, A, TCP, 80, sport, tcp_flags=flags)
    return Packet(A, N, TCP, sport, 80, tcp_flags=flags)


@pytest.fixture
def ct() -> Iterator[CtDriver]:
    """An empty pair of maps, 64 entries each."""
    driver = CtDriver(64, LIMITS)
    yield driver
    driver.close()


def begin(ct: CtDriver, packet: Packet, hook: str = "egress", now: int = 100) -> Key:
    """Look a new flow up and create its entry; return the key."""
    status, key, monitor, _ = ct.lookup(packet, hook, "bidir", now)
    assert (status, monitor) == (NEW, 128)
    assert ct.create(key, hook, packet.len, now, State(src_identity=48172)) == 0
    return key


@pytest.mark.parametrize(
    ("hook", "packet", "main", "companion"),
    [
        ("egress", tcp(SYN), "0af4006c 0af402ab 0050 a9f8 06 00",
         "0af4006c 0af402ab 0000 0000 01 02"),
        ("ingress", tcp(SYN), "0af4006c 0af402ab 0050 a9f8 06 01",
         "0af4006c 0af402ab 0000 0000 01 03"),
    ],
)  # fmt: skip
def test_ct_keys_are_the_reference_bytes(
    ct: CtDriver, hook: str, packet: Packet, main: str, companion: str
) -> None:
    """Main entry and ICMP companion are stored under the bytes of datapath reference 8.7."""
    begin(ct, packet, hook)
    keys = [*ct.rows(tcp=True), *ct.rows(tcp=False)]
    assert [_bytes(key) for key in keys] == [bytes.fromhex(main), bytes.fromhex(companion)]


def test_ct_service_key_keeps_addresses_and_reverses_ports(ct: CtDriver) -> None:
    """A SERVICE entry has the bytes of 8.7, its backend, and no companion."""
    packet = Packet(A, v4("10.96.0.10"), UDP, 40001, 53)
    status, key, _, _ = ct.lookup(packet, "service", "reverse", 100)
    assert status == NEW
    assert ct.create(key, "service", 60, 100, State(backend_id=7, rev_nat_id=3, ifindex=9)) == 0
    assert list(ct.rows(tcp=False)) == [key]
    assert _bytes(key) == bytes.fromhex("0a60000a 0af4006c 9c41 0035 11 04")
    status, _, _, state = ct.lookup(packet, "service", "reverse", 101)
    assert (status, state) == (REPLY, State(backend_id=7, rev_nat_id=3))


def _bytes(key: Key) -> bytes:
    ports = key.dport.to_bytes(2, "big") + key.sport.to_bytes(2, "big")
    return key.daddr[12:] + key.saddr[12:] + ports + bytes([key.proto, key.flags])


def test_ct_worked_example() -> None:
    """The four lookups of datapath reference 3.9 on two nodes, in order."""
    node1, node2 = CtDriver(64, LIMITS), CtDriver(64, LIMITS)
    assert begin(node1, tcp(SYN), "egress") == Key(A, N, 80, 43512, TCP, 0)
    assert begin(node2, tcp(SYN), "ingress") == Key(A, N, 80, 43512, TCP, 1)
    syn_ack = tcp(SYN | ACK, back=True)
    status, key, _, state = node2.lookup(syn_ack, "egress", "bidir", 100)
    assert (status, key) == (REPLY, Key(A, N, 80, 43512, TCP, 1))
    assert state.src_identity == 48172
    status, key, _, _ = node1.lookup(syn_ack, "ingress", "bidir", 100)
    assert (status, key) == (REPLY, Key(A, N, 80, 43512, TCP, 0))
    status, _, _, _ = node1.lookup(tcp(ACK), "egress", "bidir", 100)
    assert status == ESTABLISHED
    node1.close()
    node2.close()


def test_ct_icmp_error_of_the_peer_is_related_and_of_a_router_new(ct: CtDriver) -> None:
    """Errors are matched by their outer addresses alone."""
    begin(ct, tcp(SYN))
    error = Packet(N, A, ICMP, icmp_type=3)
    assert ct.lookup(error, "ingress", "bidir", 101)[0] == RELATED
    assert ct.lookup(Packet(ROUTER, A, ICMP, icmp_type=3), "ingress", "bidir", 101)[0] == NEW


def test_ct_node_port_entry_has_no_companion(ct: CtDriver) -> None:
    """A NodePort entry stands alone."""
    key = Key(A, N, 80, 43512, TCP, 0)
    assert ct.create(key, "egress", 60, 100, State(flags=32)) == 0
    assert ct.rows(tcp=False) == {}


def test_ct_lifetimes_follow_the_flags(ct: CtDriver) -> None:
    """SYNs live 60 s, the first ACK makes it 8000 s, the second side's FIN 10 s."""
    key = begin(ct, tcp(SYN), now=100)
    steps = [
        (tcp(SYN | ACK, back=True), "ingress", 101, 161),
        (tcp(ACK), "egress", 102, 8102),
        (tcp(FIN | ACK), "egress", 103, 8103),
        (tcp(ACK, back=True), "ingress", 104, 8104),
        (tcp(FIN | ACK, back=True), "ingress", 105, 115),
        (tcp(ACK), "egress", 106, 115),
    ]
    for packet, hook, now, expires in steps:
        ct.lookup(packet, hook, "bidir", now)
        assert ct.rows(tcp=True)[key].expires == expires


def test_ct_reset_before_both_syns_closes_both_sides(ct: CtDriver) -> None:
    """A refused connection is over at once; a RST later closes one side only."""
    key = begin(ct, tcp(SYN))
    ct.lookup(tcp(RST | ACK, back=True), "ingress", "bidir", 101)
    entry = ct.rows(tcp=True)[key]
    assert (entry.rx_closing, entry.tx_closing, entry.expires) == (True, True, 111)
    other = begin(ct, tcp(SYN, sport=7))
    ct.lookup(tcp(SYN | ACK, back=True, sport=7), "ingress", "bidir", 101)
    ct.lookup(tcp(RST, back=True, sport=7), "ingress", "bidir", 102)
    entry = ct.rows(tcp=True)[other]
    assert (entry.rx_closing, entry.tx_closing) == (True, False)


def test_ct_syn_on_a_closing_entry_is_new(ct: CtDriver) -> None:
    """Reuse of the ports asks policy again and clears what the old connection left."""
    key = begin(ct, tcp(SYN))
    ct.lookup(tcp(FIN | ACK), "egress", "bidir", 101)
    assert ct.lookup(tcp(SYN), "egress", "bidir", 102)[0] == NEW
    entry = ct.rows(tcp=True)[key]
    assert (entry.closing, entry.seen_non_syn, entry.seen) == (False, False, (0, SYN))


def test_ct_expired_entry_still_matches_until_swept(ct: CtDriver) -> None:
    """A packet revives what the sweep has not collected."""
    begin(ct, Packet(A, N, UDP, 5000, 53), now=100)
    assert ct.lookup(Packet(N, A, UDP, 53, 5000), "ingress", "bidir", 5000)[0] == REPLY
    assert ct.walk(ct.lib.fwd_ct_sweep, 5061) == 2


def test_ct_update_state_rewrites_an_existing_entry_only(ct: CtDriver) -> None:
    """rev_nat_id and flags change in place; a missing key is reported."""
    begin(ct, tcp(SYN))
    _, tuple_, _ = ct.load(tcp(SYN, back=True))
    state = ct.ffi.new("struct ct_state *", {"rev_nat_id": 4, "flags": 8})
    args = ct.ffi.addressof(ct.dp.ct), tuple_, ct.hash(tuple_), state
    assert ct.lib.ct_update_state(*args)
    (entry,) = ct.rows(tcp=True).values()
    assert (entry.state.rev_nat_id, entry.state.flags) == (4, 8)
    tuple_.sport ^= 1
    assert not ct.lib.ct_update_state(*args)


PACKETS = st.builds(
    Packet,
    saddr=st.sampled_from([A, N, ROUTER]),
    daddr=st.sampled_from([A, N]),
    proto=st.sampled_from([TCP, TCP, UDP, ICMP, SCTP]),
    sport=st.sampled_from([80, 43512]),
    dport=st.sampled_from([80, 43512]),
    tcp_flags=st.sampled_from([SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN]),
    icmp_type=st.sampled_from([0, 3, 8, 11, 13]),
    icmp_id=st.sampled_from([1, 2]),
    later_fragment=st.sampled_from([False, False, False, True]),
    len=st.integers(14, 65549),
)


@given(
    PACKETS,
    st.sampled_from([4, 6]),
    st.sampled_from([TCP, UDP, ICMP, ICMPV6, SCTP, 47, 89, 0]),
    st.integers(0, 255),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_ct_tuple_load_agrees_with_the_twin(
    packet: Packet, family: int, proto: int, icmp_type: int, truncated: bool
) -> None:
    """Ports, RELATED bit, action and drop of every protocol are those of 3.3."""
    fields = dict(vars(packet), family=family, proto=proto, icmp_type=icmp_type)
    packet = Packet(**{**fields, "truncated": truncated})
    driver = LOADER()
    drop, tuple_, wire = driver.load(packet)
    expected, key, flags, action = load(packet)
    assert drop == expected
    if not drop:
        swapped = (tuple_.dport >> 8 | (tuple_.dport & 255) << 8)
        assert (swapped, tuple_.flags) == (key.dport, key.flags)
        assert (wire.tcp_flags, wire.action) == (flags, action)


_loaders: list[CtDriver] = []


def LOADER() -> CtDriver:  # noqa: N802
    """Return one driver for all examples."""
    if not _loaders:
        _loaders.append(CtDriver(1, LIMITS))
    return _loaders[0]


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
        written = len(planned) if result == 0 else len(planned) - 1
        for position, (key, entry) in enumerate(planned):
            entries = self.twin.map_of(tcp=key.proto == TCP)
            if key not in entries and len(entries) == self.cap:
                victims = self.twin.allowed_victims(self.now, tcp=key.proto == TCP)
                if not victims:
                    assert result == FULL
                    self.failures += 1
                    return
                self.evict(victims, after, keep={k for k, _ in planned[position:]})
            assert position <= written
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
    max_examples=60, stateful_step_count=40, deadline=None, print_blob=True
)
TestCtMachine = CtMachine.TestCase


def test_ct_full_map_keeps_established_connections() -> None:
    """A flood of SYNs ten times the map's size costs no established connection its entry."""
    ct = CtDriver(256, LIMITS)
    kept = set()
    for port in range(200):
        kept.add(begin(ct, tcp(SYN, sport=port + 1)))
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


def test_ct_lines_overflow_and_recover() -> None:
    """Thousands of flows are all found, and all gone after a sweep, with lines overflowing."""
    ct = CtDriver(4096, LIMITS)
    flows = [tcp(SYN, sport=port) for port in range(4096)]
    for packet in flows:
        begin(ct, packet)
    assert all(ct.lookup(p, "egress", "bidir", 101)[0] == ESTABLISHED for p in flows)
    assert ct.walk(ct.lib.fwd_ct_sweep, 1000, budget=64) == 4096 + 1
    assert ct.lookup(flows[0], "egress", "bidir", 1000)[0] == NEW
    assert ct.rows(tcp=True) == {}
    ct.close()


@given(st.binary(min_size=32, max_size=32), st.integers(0, 65535), st.integers(0, 65535))
@settings(max_examples=100, deadline=None)
def test_ct_hash_is_symmetric_and_keyed(addrs: bytes, sport: int, dport: int) -> None:
    """A tuple and its reverse share a hash, another seed gives another one."""
    driver = LOADER()
    packet = Packet(addrs[:16], addrs[16:], UDP, sport, dport)
    back = Packet(addrs[16:], addrs[:16], UDP, dport, sport)
    _, one, _ = driver.load(packet)
    _, two, _ = driver.load(back)
    assert driver.lib.ct_hash(1, one) == driver.lib.ct_hash(1, two)
    assert driver.lib.ct_hash(1, one) != driver.lib.ct_hash(2, one)
