"""The slow twin of csrc/base/gso.c and gro.c: wire packets of a super-packet, and back.

Frames are Ethernet frames of bytes; the twin takes them apart by hand, so that it shares nothing
with the C code but the rules.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.models.checksum import checksum

__all__ = ["Segment", "pseudo", "segment", "split", "wire"]

ETH = 14


@dataclass(frozen=True)
class Segment:
    """One wire packet of a flow, in terms of its headers.

    ``flow`` picks addresses and ports; ``proto`` is 6 or 17, ``family`` 4 or 6.
    """

    payload: bytes
    flow: int = 0
    proto: int = 6
    family: int = 4
    seq: int = 0
    ack: int = 7
    flags: int = 0x10
    window: int = 500
    options: bytes = b""
    ip_id: int = 0
    df: bool = True
    ttl: int = 64
    tos: int = 0
    bad: bool = False
    """Its transport checksum is wrong."""


def pseudo(packet: bytes, proto: int, l4_len: int) -> bytes:
    """Return the pseudo-header of an IP packet."""
    if packet[0] >> 4 == 4:
        return packet[12:20] + struct.pack("!BBH", 0, proto, l4_len)
    return packet[8:40] + struct.pack("!II", l4_len, proto)


def wire(one: Segment) -> bytes:
    """Return the Ethernet frame of a segment, its checksums right unless it is ``bad``."""
    ports = struct.pack("!HH", 1000 + one.flow, 80)
    if one.proto == 6:
        offset = (20 + len(one.options)) // 4 << 4
        l4 = ports + struct.pack(
            "!IIBBHHH", one.seq % 2**32, one.ack, offset, one.flags, one.window, 0, 0
        )
        l4 += one.options + one.payload
        at = 16
    else:
        l4 = ports + struct.pack("!HH", 8 + len(one.payload), 0) + one.payload
        at = 6
    if one.family == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, one.tos, 20 + len(l4), one.ip_id, 0x4000 if one.df else 0,
            one.ttl, one.proto, 0, b"\x0a\0\0\1", b"\x0a\0\0\2",
        )  # fmt: skip
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        ethertype = 0x0800
    else:
        word = 6 << 28 | one.tos << 20
        head = struct.pack("!IHBB", word, len(l4), one.proto, one.ttl)
        head += bytes(15) + b"\1" + bytes(15) + b"\2"
        ethertype = 0x86DD
    check = checksum(pseudo(head, one.proto, len(l4)) + l4)
    if one.proto == 17 and check == 0:
        check = 0xFFFF
    if one.bad:
        check ^= 0x5555
    l4 = l4[:at] + struct.pack("!H", check) + l4[at + 2 :]
    return b"\2\0\0\0\0\1\2\0\0\0\0\2" + struct.pack("!H", ethertype) + head + l4


def segment(frame: bytes) -> tuple[int, int, int]:
    """Return where a frame's transport header begins and ends, and its protocol."""
    v4 = frame[ETH] >> 4 == 4
    l4 = ETH + (20 if v4 else 40)
    proto = frame[ETH + 9] if v4 else frame[ETH + 6]
    hlen = (frame[l4 + 12] >> 4) * 4 if proto == 6 else 8
    return l4, l4 + hlen, proto


def split(frame: bytes, size: int) -> list[bytes]:
    """Return the wire packets of a super-packet whose headers stand in ``frame``."""
    l4, end, proto = segment(frame)
    payload = frame[end:]
    packets = []
    for index, at in enumerate(range(0, len(payload), size)):
        part = payload[at : at + size]
        last = at + size >= len(payload)
        packets.append(_packet(frame[:end], l4, proto, part, (index, at, last)))
    return packets


def _packet(head: bytes, l4: int, proto: int, part: bytes, where: tuple[int, int, bool]) -> bytes:
    index, at, last = where
    out = bytearray(head + part)
    total = len(out) - ETH
    if out[ETH] >> 4 == 4:
        out[ETH + 2 : ETH + 4] = struct.pack("!H", total)
        (number,) = struct.unpack_from("!H", head, ETH + 4)
        out[ETH + 4 : ETH + 6] = struct.pack("!H", (number + index) % 65536)
        out[ETH + 10 : ETH + 12] = bytes(2)
        out[ETH + 10 : ETH + 12] = struct.pack("!H", checksum(bytes(out[ETH:l4])))
    else:
        out[ETH + 4 : ETH + 6] = struct.pack("!H", total - 40)
    field = l4 + (16 if proto == 6 else 6)
    if proto == 6:
        (seq,) = struct.unpack_from("!I", head, l4 + 4)
        out[l4 + 4 : l4 + 8] = struct.pack("!I", (seq + at) % 2**32)
        if not last:
            out[l4 + 13] &= ~0x09 & 0xFF
        if index:
            out[l4 + 13] &= 0x7F
    else:
        out[l4 + 4 : l4 + 6] = struct.pack("!H", len(out) - l4)
    out[field : field + 2] = bytes(2)
    body = bytes(out[l4:])
    check = checksum(pseudo(bytes(out[ETH:l4]), proto, len(body)) + body)
    out[field : field + 2] = struct.pack("!H", check or (0 if proto == 6 else 0xFFFF))
    return bytes(out)
