"""The connection part of monitor lines: every protocol's shape, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet, Raw

from fwd.observe.dissect import dissect, host_port, protocol_name

ETHER = Ether(src="96:86:44:a6:37:01", dst="d2:ad:65:4d:d0:01")
IP4 = IP(src="10.244.0.108", dst="10.244.2.171")
IP6 = IPv6(src="fd00::108", dst="fd00::171")
V4, V6 = "10.244.0.108 -> 10.244.2.171", "fd00::108 -> fd00::171"

SHAPES = [
    ("tcp-syn", IP4 / TCP(sport=43512, dport=80, flags="S"),
     "10.244.0.108:43512 -> 10.244.2.171:80 tcp SYN"),
    ("tcp-flag-order", IP4 / TCP(sport=1, dport=2, flags="FRSA"),
     "10.244.0.108:1 -> 10.244.2.171:2 tcp SYN, ACK, RST, FIN"),
    ("tcp-no-flags", IP4 / TCP(sport=1, dport=2, flags=0), "10.244.0.108:1 -> 10.244.2.171:2 tcp"),
    ("udp", IP4 / UDP(sport=40001, dport=53), "10.244.0.108:40001 -> 10.244.2.171:53 udp"),
    ("ip-options", IP(src="10.244.0.108", dst="10.244.2.171", options=b"\x94\x04\0\0")
     / UDP(sport=5, dport=6), "10.244.0.108:5 -> 10.244.2.171:6 udp"),
    ("echo-request", IP4 / ICMP(type=8), f"{V4} EchoRequest"),
    ("echo-reply", IP4 / ICMP(type=0), f"{V4} EchoReply"),
    ("port-unreachable", IP4 / ICMP(type=3, code=3), f"{V4} DestinationUnreachable(Port)"),
    ("frag-needed", IP4 / ICMP(type=3, code=4),
     f"{V4} DestinationUnreachable(FragmentationNeeded)"),
    ("ttl", IP4 / ICMP(type=11, code=0), f"{V4} TimeExceeded(TTLExceeded)"),
    ("odd-icmp", IP4 / ICMP(type=77, code=9), f"{V4} icmp type 77(9)"),
    ("later-fragment", IP(src="10.244.0.108", dst="10.244.2.171", frag=7, proto=17) / Raw(b"x" * 9),
     f"{V4} udp fragment"),
    ("gre", IP4 / GRE(), f"{V4} proto 47"),
    ("arp", ARP(), "96:86:44:a6:37:01 -> d2:ad:65:4d:d0:01 ARP"),
    ("tcp6", IP6 / TCP(sport=43512, dport=80, flags="SA"),
     "[fd00::108]:43512 -> [fd00::171]:80 tcp SYN, ACK"),
    ("echo6", IP6 / ICMPv6EchoRequest(), f"{V6} EchoRequest"),
    ("ns", IP6 / ICMPv6ND_NS(), f"{V6} NeighborSolicitation"),
    ("hop-by-hop", IP6 / IPv6ExtHdrHopByHop() / UDP(sport=5, dport=6),
     "[fd00::108]:5 -> [fd00::171]:6 udp"),
    ("later-fragment6", IP6 / IPv6ExtHdrFragment(offset=3, nh=6) / Raw(b"x" * 20),
     f"{V6} tcp fragment"),
]  # fmt: skip


@pytest.mark.parametrize(("packet", "connection"), [row[1:] for row in SHAPES],
                         ids=[row[0] for row in SHAPES])  # fmt: skip
def test_dissect_connection_shape(packet: Packet, connection: str):
    """Each protocol reads as Cilium's monitor writes it."""
    assert dissect(bytes(ETHER / packet)).connection == connection


def test_dissect_summary_names_every_layer():
    """The summary object holds the ends of layers 2, 3 and 4."""
    found = dissect(bytes(ETHER / IP4 / TCP(sport=43512, dport=80, flags="S"))).summary
    assert found == {
        "l2": {"src": "96:86:44:a6:37:01", "dst": "d2:ad:65:4d:d0:01"},
        "l3": {"src": "10.244.0.108", "dst": "10.244.2.171"},
        "l4": {"src": "43512", "dst": "80"},
        "tcp": "SYN",
    }


@pytest.mark.parametrize("frame", [b"", b"\0" * 13, bytes(ETHER) + b"\x08\x06"[:0]])
def test_dissect_too_short_is_unknown(frame: bytes):
    """What holds no protocol says so."""
    assert dissect(frame).connection == "[unknown]"


@given(st.binary(max_size=128), st.sampled_from([b"\x08\0", b"\x86\xdd", b"\x08\x06", b"\x81\0"]))
def test_dissect_survives_any_bytes(data: bytes, ethertype: bytes):
    """No capture raises, and none is left without a text."""
    assert dissect(data).connection
    assert dissect(b"\x02" * 12 + ethertype + data).connection


@given(st.integers(0, 60))
def test_dissect_survives_any_cut(length: int):
    """A frame cut anywhere reads as far as it goes."""
    frame = bytes(ETHER / IP6 / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=2))
    assert dissect(frame[:length]).connection


def test_host_port_brackets_ipv6():
    """Only IPv6 addresses need brackets before a port."""
    assert host_port("10.0.0.1", 80) == "10.0.0.1:80"
    assert host_port("fd00::1", 80) == "[fd00::1]:80"


def test_protocol_name_of_unnamed():
    """Protocols without a name read as their number."""
    assert [protocol_name(n) for n in (6, 58, 47)] == ["tcp", "icmpv6", "proto 47"]
