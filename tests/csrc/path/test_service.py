"""Rows of services, csrc/path/service.c, and what one frame a step cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fwd.control.apply import apply, diff
from fwd.control.world import World
from fwd.datapath.binding import Datapath, Outcome, Packet
from fwd.model.enums import CtStatus, Drop, Stage, Verdict
from fwd.model.rows import BackendRow, CtRow
from fwd.observe.dump import ct_line, ct_record
from tests.csrc.path.build import build, partial_checksum, vxlan
from tests.csrc.path.rows import complete, load, reload, run, world_of

ROWS = load("service")
WORLD = world_of("services")
SERVICE = 4  # a tuple flag
VIP, NGINX = "10.96.0.10", "10.244.2.171"
SEC = 1_000_000_000


@pytest.mark.parametrize("name", ROWS)
def test_service_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


@contextmanager
def datapath(world: World) -> Iterator[Datapath]:
    """A datapath that holds a world."""
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        yield dp


def frame(**spec: Any) -> bytes:
    """A frame of the pod curl."""
    return build(complete({"port": "curl", "frame": spec}))


def send(dp: Datapath, at_s: float, **spec: Any) -> Outcome:
    """The pod curl sends."""
    return dp.run(int(at_s * SEC), [Packet(frame(**spec), 2825)])[0]


def syn(dp: Datapath, at_s: float, sport: int, dst: str = VIP, dport: int = 80) -> str | None:
    """Where a new TCP flow is sent to; None = dropped."""
    out = send(dp, at_s, dst=dst, tcp={"sport": sport, "dport": dport, "flags": "S"})
    return None if out.verdict == Verdict.DROP else str(destination(out))


def destination(out: Outcome) -> IPv4Address:
    """Whom the frame inside the tunnel, or to a local pod, is for."""
    start = 8 if out.verdict == Verdict.TX_UNDERLAY else 0
    return IPv4Address(out.frame[start + 30 : start + 34])


def from_node2(dp: Datapath, at_s: float, inner: bytes, vni: int = 25002) -> Outcome:
    """A frame arrives from node2."""
    packet = Packet(
        vxlan(vni, inner),
        0x10002,
        outer_src=ip_address("192.168.56.106"),
        outer_dst=ip_address("192.168.56.105"),
    )
    return dp.run(int(at_s * SEC), [packet])[0]


def two_backends(flags: int = 0, timeout_s: int = 0) -> World:
    """The world of services.yaml where web has two backends."""
    world = world_of("services")
    rows = {row.rev_nat_id: row for row in world.services}
    web = next(row for row in rows.values() if (str(row.frontend), row.port) == (VIP, 80))
    extra = BackendRow(7, ip_address("10.244.2.172"), 8080, 6)
    both = replace(web, flags=flags, affinity_timeout_s=timeout_s, backends=(*web.backends, 7))
    services = tuple(both if row is web else row for row in world.services)
    return replace(world, services=services, backends=(*world.backends, extra))


def with_state(world: World, backend_id: int, state: int) -> World:
    """The same world with a backend in another state."""
    rows = (replace(b, state=state) if b.id == backend_id else b for b in world.backends)
    return replace(world, backends=tuple(rows))


def without(world: World, backend_id: int) -> World:
    """The same world without a backend."""
    services = tuple(
        replace(row, backends=tuple(b for b in row.backends if b != backend_id))
        for row in world.services
    )
    kept = tuple(row for row in world.backends if row.id != backend_id)
    return replace(world, services=services, backends=kept)


def service_entries(dp: Datapath) -> list[CtRow]:
    """The SERVICE entries of both maps."""
    return [row for tcp in (True, False) for row in dp.ct(tcp=tcp) if row.tuple_flags & SERVICE]


def test_new_flows_spread_evenly_over_the_backends() -> None:
    """Of 1000 flows to two backends, each gets between 430 and 570."""
    world = two_backends()
    world = replace(world, params=replace(world.params, ct_tcp=8192, ct_any=8192))
    with datapath(world) as dp:
        count = Counter(syn(dp, 1000, 20000 + n) for n in range(1000))
    assert set(count) == {NGINX, "10.244.2.172"}
    assert min(count.values()) > 430


def test_an_established_flow_sticks_whatever_is_added_or_drained() -> None:
    """A flow keeps its backend while another comes, and while its own drains; a SYN moves it."""
    world = without(two_backends(), 7)
    with datapath(world) as dp:
        assert syn(dp, 1000, 40001) == NGINX
        world = reload(dp, world, two_backends())
        data = {"dst": VIP, "tcp": {"sport": 40001, "dport": 80}}
        assert str(destination(send(dp, 1001, **data))) == NGINX
        old = next(row.id for row in world.backends if (str(row.addr), row.port) == (NGINX, 8080))
        world = reload(dp, world, with_state(world, old, 1))
        assert str(destination(send(dp, 1002, **data))) == NGINX
        assert {syn(dp, 1003, 50000 + n) for n in range(20)} == {"10.244.2.172"}
        assert syn(dp, 1004, 40001) == "10.244.2.172"


def test_a_removed_backend_takes_its_entries_along_and_no_others() -> None:
    """Service and flow entries of the backend go at once; those of the other backend stay."""
    world = two_backends()
    with datapath(world) as dp:
        where = {sport: syn(dp, 1000, sport) for sport in range(40000, 40020)}
        send(dp, 1000, dst="10.244.2.172", tcp={"sport": 9, "dport": 8080, "flags": "S"})
        reload(dp, world, without(world, 7))
        kept = {sport for sport, backend in where.items() if backend == NGINX}
        assert 0 < len(kept) < len(where)
        assert {row.dport for row in service_entries(dp)} == kept
        flows = [row for row in dp.ct(tcp=True) if not row.tuple_flags & SERVICE]
        assert {row.sport for row in flows if str(row.saddr) == NGINX} == kept
        direct = [(row.sport, row.rev_nat_id) for row in flows if str(row.saddr) == "10.244.2.172"]
        assert direct == [(9, 0)], "a flow that went there by itself is no service's"


def test_affinity_holds_until_exactly_its_timeout() -> None:
    """A client keeps its backend while it asks within the timeout, refreshed by every packet."""
    with datapath(two_backends(flags=16, timeout_s=10)) as dp:
        first = syn(dp, 1000, 40000)
        for n in range(1, 20):
            assert syn(dp, 1000 + 9 * n, 40000 + n) == first
        last = 1000 + 9 * 19
        send(dp, last + 5, dst=VIP, tcp={"sport": 40019, "dport": 80})
        assert syn(dp, last + 14, 41000) == first, "the data packet refreshed it"
    moved = 0
    for n in range(24):  # which backend is next is the hash's choice: half of them stay by chance
        with datapath(two_backends(flags=16, timeout_s=10)) as dp:
            before = syn(dp, 1000, 40000)
            moved += syn(dp, 1010, 40100 + n) != before
    assert 3 < moved < 21


def test_affinity_ends_with_its_backend() -> None:
    """A client whose backend drains or goes is sent to the other and sticks there."""
    world = two_backends(flags=16, timeout_s=10)
    with datapath(world) as dp:
        first = syn(dp, 1000, 40000)
        chosen = next(row.id for row in world.backends if str(row.addr) == first
                      and row.port == 8080 and row.proto == 6)  # fmt: skip
        world = reload(dp, world, with_state(world, chosen, 1))
        other = syn(dp, 1001, 40001)
        assert other not in (first, None)
        world = reload(dp, world, with_state(world, chosen, 0))
        assert {syn(dp, 1002, 41000 + n) for n in range(20)} == {other}


def test_the_service_entry_is_the_one_of_the_reference() -> None:
    """Its key lies as in datapath reference 8.7: addresses natural, ports crossed, flag 4."""
    with datapath(world_of("services")) as dp:
        send(dp, 1000, dst=VIP, udp={"sport": 40001, "dport": 53}, payload="query")
        (row,) = service_entries(dp)
    key = row.daddr.packed + row.saddr.packed + row.dport.to_bytes(2, "big")
    key += row.sport.to_bytes(2, "big") + bytes([row.proto, row.tuple_flags])
    assert key.hex() == "0a60000a0af4006c9c4100351104"
    dns = next(one for one in world_of("services").services if one.port == 53)
    assert (row.rev_nat_id, row.backend_id) == (dns.rev_nat_id, dns.backends[0])
    line = ct_line(ct_record(row))
    assert line.startswith("UDP OUT 10.96.0.10:53 -> 10.244.0.108:40001 service expires=1060 ")
    assert f" RevNAT={dns.rev_nat_id} " in line


def test_a_reply_whose_frontend_is_unknown_passes_as_it_is() -> None:
    """A service that went without its flows: the reply comes from the backend (4.7)."""
    world = world_of("services")
    with datapath(world) as dp:
        syn(dp, 1000, 40001)
        apply(dp, diff(world, replace(world, services=())))
        reply = {"src": NGINX, "dst": "10.244.0.108", "tcp": {"sport": 8080, "dport": 40001}}
        macs = {"smac": "02:00:00:00:00:01", "dmac": "02:00:00:00:00:02"}
        out = from_node2(dp, 1001, build({**macs, **reply}), vni=25002)
    assert (out.verdict, out.ct) == (Verdict.TX_ENDPOINT, CtStatus.REPLY)
    got = Ether(out.frame)
    assert (got[IP].src, got[TCP].sport) == (NGINX, 8080)


def test_no_room_for_the_service_entry_is_155() -> None:
    """A flow that cannot be remembered is refused: its next packet could go elsewhere."""
    world = world_of("services")
    world = replace(world, params=replace(world.params, ct_any=2))
    with datapath(world) as dp:
        answered = {"src": NGINX, "dst": "10.244.0.108", "smac": "02:00:00:00:00:01"}
        for sport in (1, 2):
            send(dp, 1000, dst=NGINX, udp={"sport": sport, "dport": 7})
            inner = {**answered, "dmac": "02:00:00:00:00:02", "udp": {"sport": 7, "dport": sport}}
            from_node2(dp, 1000, build(inner))
        out = send(dp, 1001, dst=VIP, udp={"sport": 40001, "dport": 53})
    assert (out.verdict, out.drop) == (Verdict.DROP, Drop.CT_MAP_INSERTION_FAILED)


def test_an_icmp_error_of_the_backend_is_related_and_comes_from_the_vip() -> None:
    """Policy is not asked, and the pod sees the address it talks to as the sender."""
    with datapath(world_of("services")) as dp:
        sent = send(dp, 1000, dst=VIP, udp={"sport": 40001, "dport": 53}, payload="query")
        quoted = sent.frame[8 + 14 :]
        error = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        error /= IP(src=NGINX, dst="10.244.0.108") / ICMP(type=3, code=3) / Raw(quoted)
        out = from_node2(dp, 1001, bytes(error))
    assert (out.verdict, out.ct) == (Verdict.TX_ENDPOINT, CtStatus.RELATED)
    got = Ether(out.frame)
    assert got[IP].src == VIP
    again = got[IP].copy()
    del again.chksum
    assert IP(bytes(again)).chksum == got[IP].chksum


def test_a_datagram_in_fragments_keeps_a_right_checksum() -> None:
    """Put together again, the fragments are the datagram to the backend, checksum and all."""
    data = bytes(range(256)) * 12
    whole = Ether(frame(dst=VIP, udp={"sport": 40001, "dport": 53})) / Raw(data)
    del whole[IP].len, whole[IP].chksum, whole[UDP].len, whole[UDP].chksum
    wire = bytes(Ether(bytes(whole)))
    body, parts = wire[34:], []
    with datapath(world_of("services")) as dp:
        for start in range(0, len(body), 1400):
            piece = body[start : start + 1400]
            more = "MF" if start + 1400 < len(body) else 0
            head = IP(src="10.244.0.108", dst=VIP, id=77, proto=17, flags=more, frag=start // 8)
            out = dp.run(1000 * SEC, [Packet(bytes(Ether(wire[:14]) / head / Raw(piece)), 2825)])[0]
            assert (out.verdict, str(destination(out))) == (Verdict.TX_UNDERLAY, NGINX)
            parts.append(out.frame[8 + 34 :])
    expected = IP(src="10.244.0.108", dst=NGINX) / UDP(sport=40001, dport=5353) / Raw(data)
    assert b"".join(parts) == bytes(expected)[20:]


SIX, SIX_NGINX = "fd00:96::10", "fd00:2::171"
ZERO = bytes.fromhex("35b2")
"""The payload that makes the UDP checksum of port 40000 to nginx 0, which is sent as 0xffff."""


def datagram(addresses: tuple[str, str], ports: tuple[int, int], tcp: bool, data: bytes) -> bytes:
    """An IP packet with scapy's checksums."""
    head = (IPv6 if ":" in addresses[0] else IP)(src=addresses[0], dst=addresses[1])
    return bytes(head / (TCP if tcp else UDP)(sport=ports[0], dport=ports[1]) / Raw(data))


@settings(max_examples=80)
@example(sport=40000, tcp=False, six=False, offload=False, data=ZERO)
@example(sport=40000, tcp=False, six=False, offload=True, data=ZERO)
@given(
    sport=st.integers(1, 65535),
    tcp=st.booleans(),
    six=st.booleans(),
    offload=st.booleans(),
    data=st.binary(max_size=60),
)
def test_translation_there_and_back_equals_building_anew(
    *, sport: int, tcp: bool, six: bool, offload: bool, data: bytes
) -> None:
    """Whatever the packet, it leaves as if it had been made for the backend, and so its reply."""
    pod, vip, nginx = ("fd00::108", SIX, SIX_NGINX) if six else ("10.244.0.108", VIP, NGINX)
    front, back = (80, 8080) if tcp else (53, 5353)
    macs = frame(dst=VIP, udp={"sport": 1, "dport": 2})[:12] + (b"\x86\xdd" if six else b"\x08\0")
    sent = macs + datagram((pod, vip), (sport, front), tcp, data)
    start = offset = None
    if offload:
        sent, start, offset = partial_checksum(sent)
    with datapath(WORLD) as dp:
        packet = Packet(sent, 2825, csum_start=start, csum_offset=offset)
        out = dp.run(1000 * SEC, [packet])[0]
        assert out.frame[8 + 14 :] == datagram((pod, nginx), (sport, back), tcp, data)
        reply = macs + datagram((nginx, pod), (back, sport), tcp, data)
        answer = from_node2(dp, 1001, reply).frame[14:]
    expected = bytearray(datagram((vip, pod), (front, sport), tcp, data))
    expected[7 if six else 8] -= 1
    if not six:
        again = IP(bytes(expected[:20]))
        del again.chksum
        expected[10:12] = bytes(again)[10:12]
    assert answer == bytes(expected)


def test_the_steps_name_the_service_and_its_backend() -> None:
    """Row 1 tells frontend, reverse NAT id, backend and ports; row 11 the way back."""
    world = world_of("services")
    web = next(row for row in world.services if (str(row.frontend), row.port) == (VIP, 80))
    with datapath(world) as dp:
        out = send(dp, 1000, dst=VIP, tcp={"sport": 40001, "dport": 80, "flags": "S"})
        step = next(one for one in out.steps if one.stage == Stage.LB)
        assert (step.flag, step.a, step.c, step.len) == (1, web.rev_nat_id, web.backends[0], 6)
        assert (str(step.addr), step.d) == (VIP, 80 << 16 | 8080)
        reply = build({"smac": "02:00:00:00:00:01", "dmac": "02:00:00:00:00:02", "src": NGINX,
                       "dst": "10.244.0.108", "tcp": {"sport": 8080, "dport": 40001}})  # fmt: skip
        back = next(s for s in from_node2(dp, 1001, reply).steps if s.stage == Stage.REV_NAT)
        assert (back.flag, back.a, str(back.addr)) == (1, web.rev_nat_id, VIP)
        assert back.d == 80 << 16 | 8080
