"""Conntrack against its slow twin, and the worked rows of datapath reference 3.9 and 8.7."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.tables.ct_driver import CtDriver, one_driver
from tests.csrc.tables.ct_flows import A6, N6, PACKETS, ROUTER, A, N, begin, mapped, tcp
from tests.models.ct import Key, Limits, Packet, State, load

NEW, ESTABLISHED, REPLY, RELATED = range(4)
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP, ICMP, ICMPV6, SCTP = 6, 17, 1, 58, 132
FULL = 155


LIMITS = Limits()


@pytest.fixture
def ct() -> Iterator[CtDriver]:
    """An empty pair of maps, 64 entries each."""
    driver = CtDriver(64, LIMITS)
    yield driver
    driver.close()


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
    packet = Packet(A, mapped("10.96.0.10"), UDP, 40001, 53)
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


def test_ct_ipv6_flow_has_an_icmpv6_companion(ct: CtDriver) -> None:
    """A "packet too big" of the peer is related to the IPv6 flow."""
    begin(ct, Packet(A6, N6, UDP, 5000, 53, family=6))
    error = Packet(N6, A6, ICMPV6, family=6, icmp_type=2)
    assert ct.lookup(error, "ingress", "bidir", 101)[0] == RELATED


def test_ct_scopes_look_one_way_only(ct: CtDriver) -> None:
    """FORWARD never takes a packet for a reply, REVERSE never for the flow's own direction."""
    begin(ct, tcp(SYN), "egress")
    begin(ct, tcp(SYN), "ingress")
    answer = tcp(ACK, back=True)
    assert ct.lookup(answer, "egress", "reverse", 101)[0] == REPLY
    assert ct.lookup(answer, "egress", "forward", 101)[:2] == (NEW, Key(N, A, 43512, 80, TCP, 0))
    assert ct.lookup(tcp(ACK), "egress", "forward", 101)[0] == ESTABLISHED
    assert ct.lookup(tcp(ACK), "egress", "reverse", 101)[:2] == (NEW, Key(N, A, 43512, 80, TCP, 1))


def test_ct_reports_new_flags_at_once_and_the_rest_every_interval(ct: CtDriver) -> None:
    """Nothing new within 5 s is not worth an event; each direction keeps its own time."""
    begin(ct, tcp(SYN), now=100)
    assert ct.lookup(tcp(SYN), "egress", "bidir", 105)[2] == 0
    assert ct.lookup(tcp(SYN), "egress", "bidir", 106)[2] == 128
    assert ct.lookup(tcp(ACK), "egress", "bidir", 107)[2] == 128
    assert ct.lookup(tcp(ACK), "egress", "bidir", 112)[2] == 0
    assert ct.lookup(tcp(ACK, back=True), "ingress", "bidir", 112)[2] == 128
    assert ct.lookup(tcp(ACK), "egress", "bidir", 113)[2] == 128


def test_ct_closing_service_flow_may_move_after_30_s(ct: CtDriver) -> None:
    """A SYN on a closing SERVICE entry is NEW; later than the rebalance time nothing is touched."""
    syn, fin = tcp(SYN), tcp(FIN | ACK)
    _, key, _, _ = ct.lookup(syn, "service", "reverse", 100)
    assert ct.create(key, "service", 60, 100, State(backend_id=7)) == 0
    assert ct.lookup(fin, "service", "reverse", 106)[0] == REPLY
    assert not ct.rows(tcp=True)[key].alive
    assert ct.lookup(syn, "service", "reverse", 136)[0] == NEW
    assert ct.rows(tcp=True)[key].packets == (0, 2)
    assert ct.lookup(syn, "service", "reverse", 135)[0] == NEW
    assert ct.rows(tcp=True)[key].packets == (0, 3)


def test_ct_node_port_entry_has_no_companion(ct: CtDriver) -> None:
    """A NodePort entry stands alone; its backend's own, which says NODE_PORT, too, does not."""
    key = Key(A, N, 80, 43512, TCP, 0)
    assert ct.create(key, "egress", 60, 100, State(flags=32)) == 0
    assert ct.rows(tcp=False) == {}
    assert ct.create(key._replace(flags=1), "ingress", 60, 100, State(flags=32)) == 0
    assert len(ct.rows(tcp=False)) == 1


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
    driver = one_driver()
    drop, tuple_, wire = driver.load(packet)
    expected, key, flags, action = load(packet)
    assert drop == expected
    if not drop:
        swapped = tuple_.dport >> 8 | (tuple_.dport & 255) << 8
        assert (swapped, tuple_.flags) == (key.dport, key.flags)
        assert (wire.tcp_flags, wire.action) == (flags, action)
