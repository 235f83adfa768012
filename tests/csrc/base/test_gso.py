"""csrc/base/gso.c: one header a wire packet, against the slow twin and scapy."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.csrc.base.offload import Super, split
from tests.models import gso as twin
from tests.models.checksum import checksum

GSO_TYPE = {(6, 4): 1, (6, 6): 4, (17, 4): 5, (17, 6): 5}


def super_of(one: twin.Segment, size: int) -> Super:
    """The super-packet a pod's kernel would hand over: its checksum is the pseudo-header's sum."""
    frame = twin.wire(one)
    l4, _, proto = twin.segment(frame)
    offset = 16 if proto == 6 else 6
    partial = 0xFFFF ^ checksum(twin.pseudo(frame[14:], proto, len(frame) - l4))
    frame = frame[: l4 + offset] + struct.pack("!H", partial) + frame[l4 + offset + 2 :]
    return Super(frame, GSO_TYPE[proto, one.family], size, l4, offset, needs_csum=True)


segments = st.builds(
    twin.Segment,
    payload=st.binary(min_size=1, max_size=4000),
    proto=st.sampled_from([6, 17]),
    family=st.sampled_from([4, 6]),
    seq=st.integers(0, 2**32 - 1),
    flags=st.sampled_from([0x10, 0x18, 0x19, 0x11, 0x98, 0x50]),
    options=st.sampled_from([b"", b"\1\1\x08\x0a" + bytes(8), bytes(40)]),
    ip_id=st.integers(0, 65535),
)


@settings(max_examples=150)
@given(segments, st.integers(1, 1500))
def test_split_equals_the_slow_twin(one: twin.Segment, size: int) -> None:
    """Every wire packet is byte for byte what the twin makes."""
    one = replace(one, options=b"") if one.proto == 17 else one
    if len(one.payload) // size > 2000:
        return
    whole = super_of(one, size)
    assert split(whole) == twin.split(whole.frame, size)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", [6, 17])
def test_scapy_finds_every_checksum_right(family: int, proto: int) -> None:
    """Lengths, ids, sequence numbers and checksums of 64 KB hold before a foreign judge."""
    payload = bytes(range(256)) * 240
    one = twin.Segment(payload, proto=proto, family=family, seq=2**32 - 5, ip_id=65530, flags=0x18)
    got = split(super_of(one, 1398))
    assert got is not None
    seen = b""
    for index, frame in enumerate(got):
        packet = Ether(frame)
        ip, l4 = packet[IP if family == 4 else IPv6], packet[TCP if proto == 6 else UDP]
        if proto == 6:
            assert l4.seq == (2**32 - 5 + len(seen)) % 2**32
            assert l4.flags == ("PA" if index == len(got) - 1 else "A")
        if family == 4:
            assert ip.id == (65530 + index) % 65536
        seen += bytes(l4.payload)
        again = packet.copy()
        for layer in (again[TCP if proto == 6 else UDP], *([again[IP]] if family == 4 else [])):
            del layer.chksum
        assert bytes(Ether(bytes(again))) == frame
    assert seen == payload


@pytest.mark.parametrize(
    "change",
    [
        {"gso_type": 4},
        {"gso_type": 5},
        {"gso_type": 3},
        {"gso_size": 0},
        {"needs_csum": False},
        {"csum_offset": 6},
        {"csum_start": 14},
        {"csum_start": 100},
        {"gso_size": 1},
    ],
    ids=str,
)
def test_contradicting_fields_are_refused(change: dict[str, int]) -> None:
    """Fields that do not belong to the frame, and more packets than any MSS makes, are no plan."""
    whole = super_of(twin.Segment(bytes(3000)), 1000)
    assert split(whole) is not None
    assert split(replace(whole, **change)) is None


def test_headers_longer_than_the_room_are_refused() -> None:
    """A transport header that ends beyond the frame, or beyond the room for headers."""
    whole = super_of(twin.Segment(bytes(30)), 10)
    cut = replace(whole, frame=whole.frame[:54])
    assert split(cut) is None
    long = bytearray(whole.frame)
    long[46] = 0xF0  # data offset 60
    assert split(replace(whole, frame=bytes(long))) is None
