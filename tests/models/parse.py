"""What csrc/base/parse.c must find in a frame, written as slices instead of offsets."""

from __future__ import annotations

from dataclasses import dataclass

from fwd.model.enums import Drop

__all__ = ["Found", "parse"]

_EXTENSIONS = {0, 43, 44, 51, 60}
_EXTENSION_LIMIT = 4
_PORT_HEADER = {6: 20, 17: 8, 132: 8}
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass
class Found:
    """The fields a hook uses; ports are host order."""

    ethertype: int = 0
    family: int = 0
    proto: int = 0
    ttl: int = 0
    saddr: bytes = bytes(16)
    daddr: bytes = bytes(16)
    fragment: bool = False
    later_fragment: bool = False
    l4_off: int = 0
    l4_len: int = 0
    has_l4: bool = False
    sport: int = 0
    dport: int = 0
    tcp_flags: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0


def parse(frame: bytes) -> tuple[int, Found]:
    """Return (drop reason or 0, what was found up to there)."""
    found = Found()
    if len(frame) < 14:
        return Drop.UNSUPPORTED_L2_PROTOCOL, found
    found.ethertype = int.from_bytes(frame[12:14])
    if found.ethertype < 0x600:
        return Drop.UNSUPPORTED_L2_PROTOCOL, found
    if found.ethertype == 0x800:
        return _ipv4(frame[14:], found), found
    if found.ethertype == 0x86DD:
        return _ipv6(frame[14:], found), found
    return Drop.UNSUPPORTED_L3_PROTOCOL, found


def _ipv4(packet: bytes, found: Found) -> int:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return Drop.INVALID_PACKET_DROPPED
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
    if header < 20 or min(total, len(packet)) < header:
        return Drop.INVALID_PACKET_DROPPED
    flags = int.from_bytes(packet[6:8])
    found.family, found.ttl, found.proto = 4, packet[8], packet[9]
    found.fragment, found.later_fragment = bool(flags & 0x3FFF), bool(flags & 0x1FFF)
    found.saddr, found.daddr = _MAPPED + packet[12:16], _MAPPED + packet[16:20]
    _l4(packet[header:total], 14 + header, found)
    return _cut(found) if total > len(packet) else 0


def _ipv6(packet: bytes, found: Found) -> int:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return Drop.INVALID_PACKET_DROPPED
    length = int.from_bytes(packet[4:6])
    if _MAPPED in {packet[8:20], packet[24:36]}:
        return Drop.INVALID_PACKET_DROPPED
    found.family, found.ttl = 6, packet[7]
    found.saddr, found.daddr = packet[8:24], packet[24:40]
    rest, kind, seen, offset = packet[40 : 40 + length], packet[6], 0, 54
    while kind in _EXTENSIONS and not found.later_fragment:
        if seen == _EXTENSION_LIMIT or len(rest) < 8:
            return Drop.INVALID_IPV6_EXTENSION_HEADER
        size = {44: 8, 51: (rest[1] + 2) * 4}.get(kind, (rest[1] + 1) * 8)
        if size > len(rest):
            return Drop.INVALID_IPV6_EXTENSION_HEADER
        if kind == 44:
            word = int.from_bytes(rest[2:4])
            found.fragment, found.later_fragment = bool(word & 0xFFF9), bool(word & 0xFFF8)
        kind, rest, offset, seen = rest[0], rest[size:], offset + size, seen + 1
    if kind == 59:
        return Drop.INVALID_IPV6_EXTENSION_HEADER
    found.proto = kind
    _l4(rest, offset, found)
    return _cut(found) if length > len(packet) - 40 else 0


def _cut(found: Found) -> int:
    whole = found.has_l4 or found.later_fragment
    return Drop.INVALID_PACKET_DROPPED if whole else 0


def _l4(segment: bytes, offset: int, found: Found) -> None:
    found.l4_off, found.l4_len = offset, len(segment)
    if found.later_fragment:
        return
    if found.proto in (1, 58) and len(segment) >= 8:
        found.icmp_type, found.icmp_code = segment[0], segment[1]
        found.icmp_id = int.from_bytes(segment[4:6])
        found.has_l4 = True
    need = _PORT_HEADER.get(found.proto)
    if need is None or len(segment) < need:
        return
    if found.proto == 6:
        if (segment[12] >> 4) * 4 < 20:
            return
        found.tcp_flags = segment[13]
    found.sport, found.dport = int.from_bytes(segment[:2]), int.from_bytes(segment[2:4])
    found.has_l4 = True
