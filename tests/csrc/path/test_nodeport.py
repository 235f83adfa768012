"""Rows of services from outside, csrc/path/nodeport.c, and what one frame cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.control.apply import apply, diff
from fwd.control.world import World
from fwd.datapath.binding import PORT_NETDEV, PORT_OVERLAY, Datapath, Outcome
from fwd.datapath.packet import Packet
from fwd.model.enums import CtStatus, Drop, Verdict
from fwd.model.maglev import MAGLEV_SEED, MAGLEV_SIZE
from fwd.model.rows import Address
from tests.csrc.path.build import build
from tests.csrc.path.rows import balance, complete, load, packet_of, reload, run, world_of
from tests.models.jhash import MASK, final, hashlittle, mix

ROWS = load("nodeport") | load("nodeport_error")
WORLD, WORLD2 = world_of("nodeport"), world_of("nodeport-two")
PACKETS = [packet_of(step, WORLD.ports) for row in ROWS.values() for step in row["steps"]]
CLIENT, EXT, THREE, STICKY = "203.0.113.9", "198.51.100.10", "198.51.100.20", "198.51.100.21"
NODE1, NODE2 = ip_address("192.168.56.105"), ip_address("192.168.56.106")
SEC = 1_000_000_000


@pytest.mark.parametrize("name", ROWS)
def test_nodeport_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


@contextmanager
def datapath(world: World = WORLD) -> Iterator[Datapath]:
    """A datapath that holds a world."""
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        yield dp


def frame(port: str = "netdev", **spec: Any) -> bytes:
    """A frame as the rows write it."""
    return build(complete({"port": port, "frame": spec}))


def arrive(dp: Datapath, at_s: float, **spec: Any) -> Outcome:
    """A frame from netdev."""
    return dp.run(int(at_s * SEC), [Packet(frame(**spec), PORT_NETDEV)])[0]


def cross(dp: Datapath, at_s: float, sent: Outcome, by: Address, to: Address) -> Outcome:
    """What one node sent over the underlay arrives at the other."""
    assert (sent.verdict, sent.remote) == (Verdict.TX_UNDERLAY, to)
    packet = Packet(sent.frame, PORT_OVERLAY, outer_src=by, outer_dst=to)
    return dp.run(int(at_s * SEC), [packet])[0]


def inner(out: Outcome) -> bytes:
    """The IPv4 packet inside a tunnelled frame or a plain one."""
    return out.frame[(8 if out.remote is not None else 0) + 14 :]


def ends(out: Outcome) -> tuple[str, int, str, int]:
    """Source and destination of the frame that left."""
    ip = inner(out)
    six = ip[0] >> 4 == 6
    kind, at, size, l4 = (IPv6Address, 8, 16, 40) if six else (IPv4Address, 12, 4, 20)
    src, dst = kind(ip[at : at + size]), kind(ip[at + size : at + 2 * size])
    ports = [int.from_bytes(ip[l4 + n : l4 + n + 2], "big") for n in (0, 2)]
    return str(src), ports[0], str(dst), ports[1]


# ---- two nodes ----


def test_a_connection_crosses_two_nodes_and_comes_back() -> None:
    """Client, node 1, the tunnel, nginx on node 2, and every step in reverse, three times."""
    with datapath() as one, datapath(WORLD2) as two:
        for turn, (flags, answer) in enumerate((("S", "SA"), ("A", "A"), ("FA", "FA"))):
            sent = arrive(one, turn, src=CLIENT, dst=EXT,
                          tcp={"sport": 50000, "dport": 80, "flags": flags})  # fmt: skip
            assert ends(sent) == ("10.244.0.150", 50000, "10.244.2.171", 8080)
            there = cross(two, turn, sent, NODE1, NODE2)
            assert (there.verdict, there.port) == (Verdict.TX_ENDPOINT, 60)
            assert there.src_identity == 2
            back = frame(
                "curl", src="10.244.2.171", dst="10.244.0.150", smac="96:86:44:a6:37:03",
                dmac="d2:ad:65:4d:d0:03", tcp={"sport": 8080, "dport": 50000, "flags": answer},
            )  # fmt: skip
            reply = two.run(turn * SEC, [Packet(back, 60)])[0]
            out = cross(one, turn, reply, NODE2, NODE1)
            assert (out.verdict, out.port, out.ct) == (
                Verdict.TX_UNDERLAY, PORT_NETDEV, CtStatus.REPLY)  # fmt: skip
            assert ends(out) == (EXT, 80, CLIENT, 50000)
        (entry,) = [row for row in one.ct(tcp=True) if row.tuple_flags == 0]
        assert entry.flags & 32
        assert entry.src_identity == 2
        assert (entry.rx_packets, entry.tx_packets) == (3, 3)
        assert not list(one.ct(tcp=False)), "no ICMP companion"


def test_both_nodes_give_a_client_the_same_backend() -> None:
    """Whichever node a client comes to, and in whatever order the file has the backends."""
    with datapath() as one, datapath(WORLD2) as two:
        for sport in range(1024, 1124):
            spec = {"src": CLIENT, "dst": THREE, "tcp": {"sport": sport, "dport": 80, "flags": "S"}}
            first, second = arrive(one, 1, **spec), arrive(two, 1, **spec)
            assert ends(first)[2:] == ends(second)[2:]


# ---- which backend ----


def maglev_place(client: Address, sport: int, dport: int, proto: int) -> int:
    """Where a flow falls in a table, by the twin; ports as they lie in the packet."""
    words = [int.from_bytes(client.packed[at : at + 4], "little")
             for at in range(0, len(client.packed), 4)]  # fmt: skip
    low, high = (int.from_bytes(n.to_bytes(2, "big"), "little") for n in (sport, dport))
    ports = high << 16 | low
    if len(words) == 1:
        seed = int.from_bytes(MAGLEV_SEED[4:8], "big")
        data = b"".join(word.to_bytes(4, "little") for word in (words[0], ports, proto))
        return hashlittle(data, seed) % MAGLEV_SIZE
    a, b, c = mix(words[0], words[1], words[2])
    a, b, c = mix((a + words[3]) & MASK, (b + ports) & MASK, (c + proto) & MASK)
    return final((a + int.from_bytes(MAGLEV_SEED[8:12], "big")) & MASK, b, c) % MAGLEV_SIZE


def test_the_twin_is_lookup3() -> None:
    """The value its author publishes."""
    assert hashlittle(b"Four score and seven years ago", 0) == 0x17770551


clients = st.one_of(
    st.integers(0x0B000000, 0x0BFFFFFF).map(IPv4Address),
    st.integers(1 << 96, (1 << 97) - 1).map(lambda n: IPv6Address((0x20010DB8 << 96) | n >> 1)),
)


@settings(max_examples=60, deadline=None)
@given(clients, st.integers(1, 65535))
def test_a_new_flow_gets_the_backend_of_its_place(client: Address, sport: int) -> None:
    """The hash of client, ports and protocol, both families, as the twin says."""
    dst = THREE if client.version == 4 else "2001:db8::20"
    with datapath() as dp:
        out = arrive(dp, 1, src=str(client), dst=dst,
                     tcp={"sport": sport, "dport": 80, "flags": "S"})  # fmt: skip
        (service,) = [one for one in dp.services() if str(one.frontend) == dst and one.port]
        chosen = dp.maglev(service.rev_nat_id)[maglev_place(client, sport, 80, 6)]
        (backend,) = [one for one in dp.backends() if one.id == chosen]
        assert ends(out)[2] == str(backend.addr)


def test_maglev_spreads_flows_evenly() -> None:
    """Three backends get a third of a client's flows each, within a fifth."""
    with datapath() as dp:
        got = Counter(
            ends(arrive(dp, 1, src=CLIENT, dst=THREE,
                        tcp={"sport": sport, "dport": 80, "flags": "S"}))[2]
            for sport in range(1000, 1900)
        )  # fmt: skip
    assert len(got) == 3
    assert all(240 <= count <= 360 for count in got.values())


def test_affinity_leaves_the_port_out_and_outlives_its_flow() -> None:
    """One backend for all ports of a client, within the timeout and after it."""
    with datapath() as dp:
        got = {
            ends(arrive(dp, at_s, src=CLIENT, dst=STICKY,
                        tcp={"sport": 40000 + at_s, "dport": 80, "flags": "S"}))[2]
            for at_s in (1, 2, 3, 20, 40)
        }  # fmt: skip
        (service,) = [one for one in dp.services() if str(one.frontend) == STICKY and one.port]
        chosen = dp.maglev(service.rev_nat_id)[maglev_place(ip_address(CLIENT), 0, 80, 6)]
        (backend,) = [one for one in dp.backends() if one.id == chosen]
    assert got == {str(backend.addr)}


def test_without_a_table_the_dice_choose() -> None:
    """No Maglev table: every backend is met, and a known flow keeps its own."""
    with datapath(replace(WORLD, maglev=())) as dp:
        first = [ends(arrive(dp, 1, src=CLIENT, dst=THREE,
                             tcp={"sport": sport, "dport": 80, "flags": "S"}))[2]
                 for sport in range(1000, 1060)]  # fmt: skip
        again = [ends(arrive(dp, 2, src=CLIENT, dst=THREE,
                             tcp={"sport": sport, "dport": 80, "flags": "A"}))[2]
                 for sport in range(1000, 1060)]  # fmt: skip
    assert len(set(first)) == 3
    assert first == again


# ---- what changes under a connection ----


def test_a_backend_that_goes_takes_its_flows_along_and_no_others() -> None:
    """After a reload the flows of the lost backend are chosen anew, the others stay."""
    left = tuple(one for one in WORLD.services if one.frontend != ip_address(THREE) or not one.port)
    (three,) = [one for one in WORLD.services if one not in left]
    gone, *kept = three.backends
    table = next(row for row in WORLD.maglev if row.rev_nat_id == three.rev_nat_id)
    moved = replace(
        table, backends=tuple(one if one != gone else kept[0] for one in table.backends)
    )
    fewer = replace(
        WORLD,
        services=(*left, replace(three, backends=tuple(kept))),
        maglev=tuple(moved if row is table else row for row in WORLD.maglev),
    )
    names = {row.id: str(row.addr) for row in WORLD.backends}
    spec = {"src": CLIENT, "dst": THREE}
    with datapath() as dp:
        before = {
            sport: ends(arrive(dp, 1, **spec, tcp={"sport": sport, "dport": 80, "flags": "S"}))[2]
            for sport in range(1000, 1030)
        }
        reload(dp, WORLD, fewer)
        after = {sport: ends(arrive(dp, 2, **spec, tcp={"sport": sport, "dport": 80}))[2]
                 for sport in range(1000, 1030)}  # fmt: skip
    assert names[gone] in before.values()
    assert names[gone] not in after.values()
    assert all(after[one] == was for one, was in before.items() if was != names[gone])


def test_two_clients_with_one_port_get_two_and_the_sweep_takes_both() -> None:
    """The second client's port moves; mappings go with their connections' entries."""
    with datapath() as dp:
        sent = [arrive(dp, 1, src=src, dst=EXT, udp={"sport": 40000, "dport": 53})
                for src in (CLIENT, "203.0.113.10")]  # fmt: skip
        ports = [ends(out)[1] for out in sent]
        assert ports[0] == 40000 != ports[1]
        for src, port in zip((CLIENT, "203.0.113.10"), ports, strict=True):
            reply = frame("overlay", src="10.244.2.171", dst="10.244.0.150",
                          udp={"sport": 5353, "dport": port})  # fmt: skip
            packet = {"port": "overlay", "vni": 25002, "raw": reply.hex()}
            out = dp.run(SEC, [packet_of(packet, WORLD.ports)])[0]
            assert ends(out) == (EXT, 53, src, 40000)
        assert dp.nat_sweep(cursor=0, budget=64) == (0, 0)
        dp.ct_sweep(tcp=False, now_s=500, cursor=0, budget=1 << 20)
        assert dp.nat_sweep(cursor=0, budget=64) == (2, 0)


def test_a_full_conntrack_refuses_new_clients_and_keeps_the_old() -> None:
    """155 for the newcomer, and who is answered goes on."""
    with Datapath.create(replace(WORLD.params, ct_tcp=2)) as dp:
        apply(dp, diff(None, WORLD))
        spec = {"dst": "192.168.56.105", "src": CLIENT}
        for flags in ("S", "A"):
            arrive(dp, 1, **spec, tcp={"sport": 50000, "dport": 30083, "flags": flags})
        back = frame(src="192.168.56.105", dst=CLIENT, tcp={"sport": 9100, "dport": 50000})
        dp.run(SEC, [Packet(back, PORT_NETDEV, to_netdev=True)])
        flood = [arrive(dp, 2, **spec, tcp={"sport": sport, "dport": 30083, "flags": "S"})
                 for sport in range(1000, 1010)]  # fmt: skip
        assert {out.drop for out in flood} <= {0, Drop.CT_MAP_INSERTION_FAILED}
        assert Drop.CT_MAP_INSERTION_FAILED in {out.drop for out in flood}
        out = arrive(dp, 3, **spec, tcp={"sport": 50000, "dport": 30083, "flags": "A"})
        assert (out.verdict, out.ct) == (Verdict.TO_STACK, CtStatus.ESTABLISHED)


# ---- whatever comes ----


def spoiled(packet: Packet, changes: dict[int, int], cut: int) -> Packet:
    """The packet with other bytes behind its first 22, and fewer of them."""
    data = bytearray(packet.frame)
    for offset, value in changes.items():
        data[22 + offset % (len(data) - 22)] = value
    return replace(packet, frame=bytes(data[: max(22, len(data) - cut)]))


@settings(max_examples=120, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PACKETS),
            st.dictionaries(st.integers(0, 80), st.integers(0, 255), max_size=3),
            st.sampled_from([0, 0, 0, 1, 12, 20]),
        ),
        max_size=20,
    )
)
def test_nodeport_survives_spoiled_packets(todo: list[tuple[Packet, dict[int, int], int]]) -> None:
    """Whatever comes, nothing is touched outside the frame and the sum of the counters holds."""
    with datapath() as dp:
        packets = [spoiled(*one) for one in todo]
        outcomes = dp.run(SEC, packets)
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == len(outcomes) == len(todo)
