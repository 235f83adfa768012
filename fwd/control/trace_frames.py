"""Frames a trace makes up: the packet of a microflow, its reply, an ICMP error about it.

Pure. Checksums are whole but SCTP's, which neither the datapath nor its peers' datapath reads.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import dpkt

if TYPE_CHECKING:
    from fwd.model.rows import Address

__all__ = ["Segment", "build_error", "build_frame"]

_TTL = 64
_ECHO = {4: (8, 0), 6: (128, 129)}
"""Echo request and reply types by family."""
_UNREACHABLE = {4: (3, 1), 6: (1, 3)}
"""(type, code) of "host unreachable": the error about a connection that any protocol may get."""
_QUOTED = 8
"""Transport bytes an error carries at least."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One packet of a flow, as a row of words."""

    src: Address
    dst: Address
    proto: Literal["tcp", "udp", "sctp", "icmp"]
    sport: int
    """ICMP: the echo identifier."""
    dport: int
    flags: int = dpkt.tcp.TH_SYN
    """TCP only."""
    answer: bool = False
    """ICMP only: an echo reply."""


def build_frame(segment: Segment, smac: bytes, dmac: bytes) -> bytes:
    """Return the Ethernet frame of a segment, without payload."""
    return _wrap(segment.src, segment.dst, *_transport(segment), smac=smac, dmac=dmac)


def build_error(src: Address, dst: Address, about: bytes, smac: bytes, dmac: bytes) -> bytes:
    """Return the frame of a "host unreachable" from ``src`` about an IP packet ``dst`` sent.

    Args:
        src: of the error.
        dst: of the error.
        about: the IP packet, from its first header byte on.
        smac: of the frame.
        dmac: of the frame.
    """
    header_len = (about[0] & 0x0F) * 4 if src.version == 4 else 40
    quoted = about[: header_len + _QUOTED]
    kind, code = _UNREACHABLE[src.version]
    message = struct.pack("!BBHI", kind, code, 0, 0) + quoted
    return _wrap(src, dst, *_icmp(message, src.version), smac=smac, dmac=dmac)


def _transport(one: Segment) -> tuple[int, object]:
    """Give (IP protocol, dpkt object or bytes)."""
    match one.proto:
        case "tcp":
            tcp = dpkt.tcp.TCP(sport=one.sport, dport=one.dport, flags=one.flags, seq=1,
                               ack=int(bool(one.flags & dpkt.tcp.TH_ACK)))  # fmt: skip
            return dpkt.ip.IP_PROTO_TCP, tcp
        case "udp":
            return dpkt.ip.IP_PROTO_UDP, dpkt.udp.UDP(sport=one.sport, dport=one.dport)
        case "sctp":
            chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65535, 1, 1, 1)  # INIT
            return dpkt.ip.IP_PROTO_SCTP, struct.pack("!HHII", one.sport, one.dport, 0, 0) + chunk
    kind = _ECHO[one.src.version][one.answer]
    return _icmp(struct.pack("!BBHHH", kind, 0, 0, one.sport, 1), one.src.version)


def _icmp(message: bytes, version: int) -> tuple[int, object]:
    if version == 4:
        return dpkt.ip.IP_PROTO_ICMP, dpkt.icmp.ICMP(message)
    return dpkt.ip.IP_PROTO_ICMP6, dpkt.icmp6.ICMP6(message)


def _wrap(
    src: Address, dst: Address, proto: int, payload: object, *, smac: bytes, dmac: bytes
) -> bytes:
    size = len(payload)  # type: ignore[arg-type]
    if src.version == 4:
        ip = dpkt.ip.IP(src=src.packed, dst=dst.packed, p=proto, ttl=_TTL, id=1,
                        len=20 + size, data=payload)  # fmt: skip
        kind = dpkt.ethernet.ETH_TYPE_IP
    else:
        ip = dpkt.ip6.IP6(src=src.packed, dst=dst.packed, nxt=proto, hlim=_TTL, plen=size,
                          data=payload)  # fmt: skip
        kind = dpkt.ethernet.ETH_TYPE_IP6
    return bytes(dpkt.ethernet.Ethernet(src=smac, dst=dmac, type=kind, data=ip))
