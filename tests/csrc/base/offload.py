"""Super-packets in C, driven from tests: the merge of the I/O room in a few lines of Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.csrc.internal import internal

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["VXLAN", "Super", "merge", "split"]

VXLAN = b"\x08\0\0\0\0\0\x2a\0"
KINDS = 0b110
"""TCP and UDP."""
SIZE = 66000


@dataclass(frozen=True)
class Super:
    """A frame and its offload fields; ``gso_size`` 0 = one wire packet."""

    frame: bytes
    gso_type: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    needs_csum: bool = False


def _pkt(ffi: Any, one: Super, keep: list[Any]) -> Any:
    buffer = ffi.new("uint8_t[]", one.frame.ljust(SIZE, b"\0"))
    keep.append(buffer)
    pkt = ffi.new("struct fwd_pkt *")
    pkt.buf, pkt.size, pkt.len = buffer, SIZE, len(one.frame)
    pkt.vnet_flags, pkt.gso_type, pkt.gso_size = int(one.needs_csum), one.gso_type, one.gso_size
    pkt.csum_start, pkt.csum_offset = one.csum_start, one.csum_offset
    return pkt


def split(one: Super, l3_off: int = 14) -> list[bytes] | None:
    """Return the wire packets, None when the fields contradict the frame.

    Both ways are tried: the payload copied behind its header, and left where it is.
    """
    ffi, lib = internal()
    keep: list[Any] = []
    gso, head = ffi.new("struct gso *"), ffi.new("uint8_t[]", lib.GSO_HEAD_MAX)
    wire = ffi.new("uint8_t[]", lib.GSO_HEAD_MAX + 65536)
    pkt = _pkt(ffi, one, keep)
    if not lib.gso_open(gso, pkt, l3_off):
        return None
    packets = []
    for index in range(gso.segments):
        length = lib.gso_segment(gso, index, head, ffi.NULL)
        assert lib.gso_segment(gso, index, wire, wire + gso.head_len) == length
        at = index * gso.size
        payload = ffi.buffer(gso.payload, gso.payload_len)[at : at + length]
        packets.append(bytes(ffi.buffer(head, gso.head_len)) + payload)
        assert bytes(ffi.buffer(wire, gso.head_len + length)) == packets[-1]
    return packets


def merge(frames: Iterable[bytes]) -> list[Super]:
    """Return what a batch of wire packets of one peer becomes, tunnel header taken off again."""
    ffi, lib = internal()
    keep: list[Any] = []
    items: list[Any] = []
    pkts: list[Any] = []
    for frame in frames:
        data = VXLAN + frame
        wire = ffi.from_buffer("uint8_t[]", data)
        shape = ffi.new("struct gro_item *")
        lib.gro_shape(shape, wire, len(data), KINDS)
        found = _newest(ffi, lib, items, pkts, shape, wire)
        if found is not None and lib.gro_append(items[found], pkts[found], shape, wire, len(data)):
            continue
        items.append(shape)
        pkts.append(_pkt(ffi, Super(data), keep))
    for item, pkt in zip(items, pkts, strict=True):
        lib.gro_finish(item, pkt)
    return [
        Super(
            bytes(ffi.buffer(pkt.buf, pkt.len))[len(VXLAN) :],
            pkt.gso_type,
            pkt.gso_size,
            max(pkt.csum_start - len(VXLAN), 0),
            pkt.csum_offset,
            bool(pkt.vnet_flags),
        )
        for pkt in pkts
    ]


def _newest(ffi: Any, lib: Any, items: list[Any], pkts: list[Any], shape: Any, wire: Any) -> Any:
    if not shape.kind:
        return None
    for index in reversed(range(len(items))):
        if not items[index].kind:
            return None
        if lib.gro_same_flow(items[index], pkts[index].buf, shape, wire):
            return index
    return None
