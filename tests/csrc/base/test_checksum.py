"""csrc/base/checksum.c against the slow twin."""

from __future__ import annotations

import random
import sys

from hypothesis import given
from hypothesis import strategies as st

from tests.csrc.internal import internal
from tests.models.checksum import checksum

HOST_IS_BIG = sys.byteorder == "big"


def wire(value: int) -> int:
    """A 16-bit value as C holds it in memory order."""
    return value if HOST_IS_BIG else (value & 0xFF) << 8 | value >> 8


def test_checksum_of_every_length_matches_the_slow_twin() -> None:
    """Every length from 0 to 1600 and a 64 KiB one, at every alignment of the start."""
    ffi, lib = internal()
    data = random.Random(1).randbytes(65536 + 8)
    buffer = ffi.from_buffer(data)
    for length in [*range(1600), 65535, 65536]:
        start = length % 8
        expect = checksum(data[start : start + length])
        assert wire(lib.fwd_csum(buffer + start, length, 0)) == expect, f"{length} bytes"


@given(st.binary(min_size=2, max_size=64).filter(lambda b: len(b) % 2 == 0), st.data())
def test_checksum_update_equals_a_new_sum(data: bytes, draw: st.DataObject) -> None:
    """Changing one word and updating gives the sum of the changed bytes (RFC 1624)."""
    _, lib = internal()
    at = 2 * draw.draw(st.integers(0, len(data) // 2 - 1))
    new = draw.draw(st.integers(0, 0xFFFF))
    old = int.from_bytes(data[at : at + 2])
    changed = data[:at] + new.to_bytes(2) + data[at + 2 :]
    updated = wire(lib.csum_update16(wire(checksum(data)), wire(old), wire(new)))
    # 0x0000 and 0xffff are the same one's-complement number
    assert updated % 0xFFFF == checksum(changed) % 0xFFFF


@given(st.binary(min_size=20, max_size=120), st.integers(0, 30), st.integers(0, 130))
def test_finish_csum_writes_the_sum_or_refuses(data: bytes, start: int, offset: int) -> None:
    """A partial checksum is finished in place; offsets outside the frame change nothing."""
    ffi, lib = internal()
    buffer = ffi.new("uint8_t[]", data)
    pkt = ffi.new("struct fwd_pkt *")
    pkt.buf, pkt.size, pkt.len = buffer, len(data), len(data)
    pkt.vnet_flags, pkt.csum_start, pkt.csum_offset = lib.FWD_VNET_NEEDS_CSUM, start, offset
    inside = start <= len(data) and start + offset + 2 <= len(data)
    assert lib.fwd_pkt_finish_csum(pkt) == inside
    after = bytes(ffi.buffer(buffer, len(data)))
    if not inside:
        assert after == data
        return
    at = start + offset
    assert int.from_bytes(after[at : at + 2]) == (checksum(data[start:]) or 0xFFFF)
    assert after[:at] + after[at + 2 :] == data[:at] + data[at + 2 :]
    assert pkt.vnet_flags == 0
