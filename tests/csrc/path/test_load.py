"""More than the tables hold: who keeps what, what is refused under which name, and what comes back.

Everything goes through fwd_dp_run, as live traffic does; the clock is the test's.
"""

from __future__ import annotations

from collections import Counter

import pytest

from fwd.model.enums import CtStatus, Drop
from tests.csrc.path.flood import Node, frame, node, ported

SENT = ("TX_UNDERLAY", 0)
REFUSED = ("DROP", int(Drop.CT_MAP_INSERTION_FAILED))
NGINX, WORLD = "10.244.2.171", "203.0.113.9"
CAP = 1024

SYN = frame("curl", tcp={"dport": 80, "flags": "S"})
ACK = frame("curl", tcp={"dport": 80, "flags": "A"})
FIN = frame("curl", tcp={"dport": 80, "flags": "FA"})
SYN_ACK = frame("overlay", tcp={"sport": 80, "flags": "SA"})
FIN_BACK = frame("overlay", tcp={"sport": 80, "flags": "FA"})
ACK_BACK = frame("overlay", tcp={"sport": 80, "flags": "A"})
FLOOD = frame("local", dst=NGINX, tcp={"dport": 81, "flags": "S"})
RST_FLOOD = frame("overlay", dst="10.244.0.109", tcp={"sport": 81, "flags": "RA"})


def connect(one: Node, ports: range) -> bool:
    """Open connections from curl to nginx; whether every packet of all of them passed."""
    count = len(ports)
    steps = (
        one.verdicts("curl", [ported(SYN, port) for port in ports])[SENT] == count,
        one.verdicts("overlay", [ported(SYN_ACK, None, port) for port in ports])[
            ("TX_ENDPOINT", 0)
        ] == count,
        one.verdicts("curl", [ported(ACK, port) for port in ports])[SENT] == count,
    )  # fmt: skip
    return all(steps)


def goes_on(one: Node, ports: range) -> bool:
    """Whether these connections are known, and their packets pass both ways."""
    out = one.run("curl", [ported(ACK, port) for port in ports])
    back = one.run("overlay", [ported(ACK_BACK, None, port) for port in ports])
    return not any(outcome.drop for outcome in (*out, *back)) and (
        {o.ct for o in out} == {CtStatus.ESTABLISHED} and {o.ct for o in back} == {CtStatus.REPLY}
    )


def flood(one: Node, count: int, *, refused: bool = False) -> Counter[tuple[str, int]]:
    """Send SYNs of as many flows from the other pod, and what became of all packets.

    Nobody answers them or, with ``refused``, a RST each.
    """
    total: Counter[tuple[str, int]] = Counter()
    for first in range(0, count, 512):
        ports = [1 + number % 65535 for number in range(first, min(first + 512, count))]
        total += one.verdicts("local", [ported(FLOOD, port) for port in ports])
        if refused:
            total += one.verdicts("overlay", [ported(RST_FLOOD, None, port) for port in ports])
        one.now_s += 0.05
    return total


@pytest.mark.parametrize("refused", [False, True], ids=["silence", "answered by RST"])
def test_syn_flood_leaves_established_flows_alone(refused):
    """Ten times the table: all of 600 connections go on, and SYNs make room for each other."""
    with node("base", ct_tcp=CAP, ct_any=CAP) as one:
        mine = range(2000, 2600)
        assert connect(one, mine)
        size = one.dp.stats("ct_tcp").size
        total = flood(one, 10 * CAP, refused=refused)
        assert goes_on(one, mine)
        stats = one.dp.stats("ct_tcp")
        assert (stats.count, stats.size) == (CAP, size)
        assert total[REFUSED] == one.drops(Drop.CT_MAP_INSERTION_FAILED) == stats.failures
        assert stats.evictions + stats.failures >= 10 * CAP - (CAP - 600)
        assert stats.evictions > 10 * stats.failures, "they make room for each other"
        one.now_s += 1
        assert connect(one, range(30000, 30100))


def test_table_of_established_flows_refuses_every_new_one():
    """155 for each SYN of a flood, counted; a connection that ends gives its place away at once."""
    with node("base", ct_tcp=CAP, ct_any=CAP) as one:
        mine = range(2000, 2000 + CAP)
        assert connect(one, mine)
        assert flood(one, 10 * CAP) == {REFUSED: 10 * CAP}
        assert one.drops(Drop.CT_MAP_INSERTION_FAILED) == 10 * CAP
        assert one.dp.stats("ct_tcp").evictions == 0
        assert goes_on(one, mine)
        one.run("curl", [ported(FIN, 2500)])
        one.run("overlay", [ported(FIN_BACK, None, 2500)])
        one.sweep()
        assert connect(one, range(40000, 40001))
        assert goes_on(one, range(2501, 2000 + CAP))


def test_new_flow_finds_its_place_within_two_seconds_of_a_flood():
    """24 half-open entries behind 1000 established ones: the sweep's next look leads to them."""
    with node("base", ct_tcp=CAP, ct_any=CAP) as one:
        mine = range(2000, 3000)
        assert connect(one, mine)
        total = flood(one, 10 * CAP)
        assert total[REFUSED] == one.drops(Drop.CT_MAP_INSERTION_FAILED) > 3 * CAP
        ports = range(50000, 50100)
        late = next(port for port in ports if one.verdicts("curl", [ported(SYN, port)])[REFUSED])
        ended_s = one.now_s
        one.now_s += 0.5  # sweep.TICK_S
        one.sweep()
        one.now_s += 0.5  # the client's second SYN
        assert connect(one, range(late, late + 1))
        assert one.now_s - ended_s <= 2
        assert goes_on(one, mine)


def test_expired_flood_makes_room_without_a_sweep():
    """After the SYNs' 60 s a table full of them takes as many new connections as it held."""
    with node("base", ct_tcp=CAP, ct_any=CAP) as one:
        flood(one, CAP)
        one.now_s += 61
        assert connect(one, range(2000, 2000 + CAP))
        assert one.dp.stats("ct_tcp").evictions == 0


UDP = frame("curl", udp={"dport": 53})
UDP_BACK = frame("overlay", udp={"sport": 53})
ECHO = frame("curl", icmp={"type": 8, "id": 0})
ECHO_BACK = frame("overlay", icmp={"type": 0, "id": 0})
ID_AT = 38


def echo(template: bytes, ident: int) -> bytes:
    """The echo message with another identifier; its checksum is not looked at."""
    return template[:ID_AT] + ident.to_bytes(2, "big") + template[ID_AT + 2 :]


@pytest.mark.parametrize("kind", ["udp", "icmp"])
def test_full_table_of_answered_exchanges(kind):
    """UDP and ICMP: those that were answered stay, new ones are 155 until the old run out."""

    def ask(number: int) -> bytes:
        return ported(UDP, number) if kind == "udp" else echo(ECHO, number)

    def answer(number: int) -> bytes:
        return ported(UDP_BACK, None, number) if kind == "udp" else echo(ECHO_BACK, number)

    with node("base", ct_tcp=CAP, ct_any=256) as one:
        for number in range(1, 257):
            assert one.verdicts("curl", [ask(number)]) == {SENT: 1}
            assert one.verdicts("overlay", [answer(number)]) == {("TX_ENDPOINT", 0): 1}
        fresh = [ask(number) for number in range(1000, 3560)]
        assert one.verdicts("curl", fresh) == {REFUSED: 2560}
        assert one.drops(Drop.CT_MAP_INSERTION_FAILED) == 2560
        assert one.verdicts("curl", [ask(number) for number in range(1, 257)]) == {SENT: 256}
        assert connect(one, range(2000, 2100)), "TCP flows do without their companions"
        one.now_s += 61
        assert one.verdicts("curl", fresh[:200]) == {SENT: 200}


LEAVING = frame("curl", src="10.244.0.108", dst=WORLD, udp={"dport": 53})
OTHERS = frame("local", src="10.244.0.109", dst=WORLD, udp={"dport": 53})
EXHAUSTED = ("DROP", int(Drop.NO_MAPPING_FOR_NAT_MASQUERADE))


def leave(one: Node, template: bytes, ports: range) -> Counter[tuple[str, int]]:
    """Let a pod's datagrams to the world pass the pod's hook and then the node's last one."""
    port = "curl" if template is LEAVING else "local"
    frames = [ported(template, number) for number in ports]
    passed = one.run(port, frames)
    assert {outcome.drop for outcome in passed} == {0}
    return one.verdicts("netdev", [outcome.frame for outcome in passed], to_netdev=True)


def test_exhausted_ports_are_a_named_drop_until_connections_end():
    """All 32768 ports toward one server taken: the next flow is refused, other servers are not."""
    with node("masquerade", ct_tcp=CAP, ct_any=1 << 17, nat=1 << 17) as one:
        assert leave(one, LEAVING, range(32768, 65536)) == {SENT: 32768}
        assert leave(one, OTHERS, range(40000, 40100)) == {EXHAUSTED: 100}
        assert one.drops(Drop.NO_MAPPING_FOR_NAT_MASQUERADE) == 100
        assert one.dp.stats("nat").failures == 100
        assert leave(one, LEAVING, range(40000, 40100)) == {SENT: 100}
        elsewhere = [ported(OTHERS, 40000, 54)]
        assert one.verdicts("netdev", elsewhere, to_netdev=True) == {SENT: 1}
        one.now_s += 61
        assert one.sweep() > 32768
        assert leave(one, OTHERS, range(40000, 40100)) == {SENT: 100}


def test_full_nat_table_forgets_the_mapping_used_least_recently():
    """32 mappings fit: each flow more costs the oldest one, counted; the newest 32 stay."""
    with node("masquerade", ct_tcp=CAP, ct_any=CAP, nat=64) as one:
        assert leave(one, LEAVING, range(40000, 40320)) == {SENT: 320}
        stats = one.dp.stats("nat")
        assert (stats.count, stats.evictions, stats.failures) == (64, 288, 0)
        answers = [
            ported(frame("netdev", src=WORLD, dst="192.168.56.105", udp={"sport": 53}), None, port)
            for port in range(40000, 40320)
        ]
        back = one.run("netdev", answers)
        to_pod = [outcome.frame[30:34] == bytes((10, 244, 0, 108)) for outcome in back]
        assert to_pod == [False] * 288 + [True] * 32


def fragment(ident: int, *, first: bool) -> bytes:
    """One half of a datagram."""
    frag = {"id": ident, "offset": 0, "more": True} if first else {"id": ident, "offset": 2}
    body = {"udp": {"sport": 5000, "dport": 53}} if first else {"proto": 17}
    return frame("curl", frag=frag, payload="x" * (8 if first else 16), **body)


def test_full_fragment_table_forgets_the_oldest_datagram():
    """Of 80 first fragments 8 are known; the rest of the others' halves is the named drop."""
    lost = ("DROP", int(Drop.FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND))
    with node("base", ct_tcp=CAP, ct_any=CAP, fragments=8) as one:
        firsts = [fragment(ident, first=True) for ident in range(80)]
        assert one.verdicts("curl", firsts) == {SENT: 80}
        assert one.dp.stats("frag").evictions == 72
        rest = [fragment(ident, first=False) for ident in range(80)]
        assert one.verdicts("curl", rest[:72]) == {lost: 72}
        assert one.drops(Drop.FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND) == 72
        assert one.verdicts("curl", rest[72:]) == {SENT: 8}
