"""Frames that a trace makes up, read back by scapy."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.layers.sctp import SCTP

from fwd.control.trace_frames import Segment, build_error, build_frame

SMAC, DMAC = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
V4 = (ip_address("10.0.0.1"), ip_address("10.0.0.2"))
V6 = (ip_address("fd00::1"), ip_address("fd00::2"))


def remade(frame: bytes) -> bytes:
    """The frame with lengths and checksums made by scapy."""
    packet = Ether(frame)
    layer = packet
    while layer:
        for name in ("chksum", "cksum", "len", "plen"):
            if name in layer.fields and not isinstance(layer, SCTP):
                layer.delfieldval(name)
        layer = layer.payload
    return bytes(packet)


@pytest.mark.parametrize("pair", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("proto", "layer"), [("tcp", TCP), ("udp", UDP), ("sctp", SCTP)])
def test_segments_are_whole(pair, proto, layer):
    """Addresses, ports and MACs stand where scapy finds them, every checksum is right."""
    frame = build_frame(Segment(*pair, proto, 43512, 80), SMAC, DMAC)
    packet = Ether(frame)
    ip = packet[IP if pair is V4 else IPv6]
    assert (ip.src, ip.dst) == tuple(map(str, pair))
    assert (bytes.fromhex(packet.src.replace(":", "")), packet.dst) == (SMAC, "02:00:00:00:00:02")
    if layer is not SCTP or pair is V4:  # scapy does not look for SCTP behind IPv6
        assert (packet[layer].sport, packet[layer].dport) == (43512, 80)
    assert frame == remade(frame)


@pytest.mark.parametrize("answer", [False, True])
def test_echoes(answer):
    """An ICMP flow is an echo, or its reply, with the identifier as the source port."""
    four = build_frame(Segment(*V4, "icmp", 7, 0, answer=answer), SMAC, DMAC)
    six = build_frame(Segment(*V6, "icmp", 7, 0, answer=answer), SMAC, DMAC)
    assert (Ether(four)[ICMP].type, Ether(four)[ICMP].id) == (0 if answer else 8, 7)
    assert Ether(six)[ICMPv6EchoReply if answer else ICMPv6EchoRequest].id == 7
    assert (four, six) == (remade(four), remade(six))


@pytest.mark.parametrize("pair", [V4, V6], ids=["ipv4", "ipv6"])
def test_errors_quote_what_they_are_about(pair):
    """The IP header and eight bytes more of the packet that went the other way."""
    about = build_frame(Segment(*pair, "udp", 43512, 53), SMAC, DMAC)
    frame = build_error(pair[1], pair[0], about[14:], DMAC, SMAC)
    packet = Ether(frame)
    assert (ICMP if pair is V4 else ICMPv6DestUnreach) in packet
    quoted = packet[IPerror if pair is V4 else IPerror6]
    assert (quoted.src, quoted.dst) == tuple(map(str, pair))
    assert frame.endswith(about[14:][: (20 if pair is V4 else 40) + 8])
    assert frame == remade(frame)
