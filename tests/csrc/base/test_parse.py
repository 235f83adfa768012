"""csrc/base/parse.c against the slow twin, on real packets and on mangled ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.csrc.internal import internal
from tests.models.parse import Found, parse

IP4 = Ether() / IP(src="10.0.0.1", dst="10.0.0.2")
IP6 = Ether() / IPv6(src="fd00::1", dst="fd00::2")
SEEDS: dict[str, Packet] = {
    "tcp": IP4 / TCP(sport=1, dport=2, flags="SA"),
    "tcp-options": IP4 / TCP(options=[("MSS", 1410), ("SAckOK", b"")]) / Raw(b"x" * 9),
    "ip-options": Ether() / IP(options=[IPOption_RR(pointer=4, routers=["1.2.3.4"])]) / UDP(),
    "udp-padded": IP4 / UDP(sport=53, dport=53) / Raw(b"") / Raw(b"\0" * 18),
    "icmp": IP4 / ICMP(id=7),
    "first-fragment": Ether() / IP(flags="MF") / UDP() / Raw(b"y" * 16),
    "later-fragment": Ether() / IP(frag=3, proto=17) / Raw(b"z" * 24),
    "gre": Ether() / IP(proto=47) / Raw(b"g" * 8),
    "arp": Ether() / ARP(),
    "vlan": Ether() / Dot1Q(vlan=5) / IP() / UDP(),
    "v6-tcp": IP6 / TCP(flags="S"),
    "v6-echo": IP6 / ICMPv6EchoRequest(id=9),
    "v6-chain": IP6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(),
    "v6-fragment": IP6 / IPv6ExtHdrFragment(offset=2, m=1, nh=17) / Raw(b"f" * 32),
    "v6-atomic": IP6 / IPv6ExtHdrFragment(offset=0, m=0, nh=17) / UDP(),
}


def found_by_c(frame: bytes) -> tuple[int, Found]:
    """Run both parse functions on a frame that ends where its allocation ends."""
    ffi, lib = internal()
    buffer = ffi.new("uint8_t[]", frame or b"\0")
    pkt = ffi.new("struct fwd_pkt *")
    pkt.buf, pkt.size, pkt.len = buffer, len(frame), len(frame)
    out = ffi.new("struct parsed *")
    drop = lib.parse_eth(pkt, out) or lib.parse_l3(pkt, out)

    def host(value: int) -> int:
        return int.from_bytes(bytes(ffi.buffer(ffi.new("uint16_t *", value))))

    found = Found(
        saddr=bytes(ffi.buffer(out.saddr.b)),
        daddr=bytes(ffi.buffer(out.daddr.b)),
        sport=host(out.sport),
        dport=host(out.dport),
        icmp_id=host(out.icmp_id),
        **{
            name: getattr(out, name)
            for name in ("ethertype", "family", "proto", "ttl", "l4_len", "tcp_flags")
        },
        **{name: getattr(out, name) for name in ("icmp_type", "icmp_code")},
        **{name: bool(getattr(out, name)) for name in ("fragment", "later_fragment", "has_l4")},
        l4_off=out.l4_off,
    )
    return drop, found


def check(frame: bytes) -> None:
    """Both parsers agree on the reason, and on every field of a good frame."""
    drop, found = found_by_c(frame)
    expect_drop, expect = parse(frame)
    assert drop == expect_drop
    if not drop:
        assert found == expect


@pytest.mark.parametrize("name", SEEDS)
def test_parse_agrees_with_the_twin_at_every_truncation(name: str) -> None:
    """A real packet, cut at every length, so that every bound is met on both sides."""
    frame = bytes(SEEDS[name])
    for length in range(len(frame) + 1):
        check(frame[:length])


@given(st.sampled_from(sorted(SEEDS)), st.data())
def test_parse_agrees_with_the_twin_on_mangled_headers(name: str, draw: st.DataObject) -> None:
    """A few bytes of a real packet replaced by anything."""
    frame = bytearray(bytes(SEEDS[name]))
    for _ in range(draw.draw(st.integers(1, 4))):
        frame[draw.draw(st.integers(12, len(frame) - 1))] = draw.draw(st.integers(0, 255))
    check(bytes(frame))


@given(st.binary(max_size=120))
def test_parse_takes_any_byte_string(data: bytes) -> None:
    """Random bytes behind an Ethernet header of either family."""
    for ethertype in (b"\x08\x00", b"\x86\xdd"):
        check(bytes(12) + ethertype + data)
