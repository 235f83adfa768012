"""csrc/base/gro.c: what merges, what must not, and that splitting gives back what came."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csrc.base.offload import merge, split
from tests.models.gso import Segment, wire

MSS = 100


def stream(count: int, size: int = MSS, **fields: object) -> list[Segment]:
    """Neighbours of one TCP flow; the last is as full as the others."""
    base = Segment(b"", **fields)  # type: ignore[arg-type]
    return [
        replace(base, payload=bytes([i % 256]) * size, seq=base.seq + i * size, ip_id=i)
        for i in range(count)
    ]


def again(frames: list[bytes]) -> list[bytes]:
    """Merge, split, and return all packets in order."""
    out: list[bytes] = []
    for one in merge(frames):
        parts = split(one) if one.gso_size else [one.frame]
        assert parts is not None
        out += parts
    return out


def sizes(segments: list[Segment]) -> list[int]:
    """How many wire packets each packet of the merged batch stands for."""
    merged = merge([wire(one) for one in segments])
    return [len(split(one) or []) if one.gso_size else 1 for one in merged]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("proto", [6, 17])
def test_neighbours_become_one_and_split_again(proto: int, family: int) -> None:
    """40 packets of a flow are one super-packet, and come out of it bit for bit."""
    packets = stream(40, proto=proto, family=family, seq=2**32 - 150)
    frames = [wire(one) for one in packets]
    [whole] = merge(frames)
    assert (whole.gso_size, whole.needs_csum) == (MSS, True)
    assert split(whole) == frames


def test_push_and_short_ones_end_a_packet() -> None:
    """PSH goes in and closes; a shorter segment goes in and closes."""
    a, b, c, d = stream(4)
    assert sizes([a, replace(b, flags=0x18), c, d]) == [2, 2]
    short = replace(b, payload=b"x" * 10)
    after = replace(c, seq=b.seq + 10)
    assert sizes([a, short, after]) == [2, 1]


A, B = stream(2)


@pytest.mark.parametrize(
    "second",
    [
        replace(B, seq=B.seq + 1),
        replace(B, payload=B.payload + b"longer"),
        replace(B, payload=b""),
        replace(B, ack=8),
        replace(B, window=501),
        replace(B, flags=0x11),
        replace(B, flags=0x12),
        replace(B, flags=0x14),
        replace(B, flags=0x30),
        replace(B, flags=0x50),
        replace(B, flags=0x90),
        replace(B, ttl=63),
        replace(B, tos=1),
        replace(B, df=False),
        replace(B, options=b"\1\1\1\1"),
        replace(B, ip_id=7),
        replace(B, bad=True),
        replace(B, flow=1),
        replace(B, family=6),
    ],
    ids=lambda one: repr({k: v for k, v in vars(one).items() if v != getattr(B, k)})[:40],
)
def test_what_differs_stays_alone(second: Segment) -> None:
    """Whatever a split would not give back, or must not hide, is not merged."""
    assert sizes([A, second]) == [1, 1]
    assert again([wire(A), wire(second)]) == [wire(A), wire(second)]


@pytest.mark.parametrize("flags", [0x18, 0x11, 0x12, 0x04, 0x90])
def test_first_of_a_packet_is_plain(flags: int) -> None:
    """Nothing is appended to what asked to be pushed, or to what is more than data."""
    assert sizes([replace(A, flags=flags), B]) == [1, 1]


def test_bad_checksum_is_never_merged_away() -> None:
    """First, in the middle or last: the wrong one stays alone, for the pod to see it."""
    for at in range(3):
        packets = stream(3)
        packets[at] = replace(packets[at], bad=True)
        frames = [wire(one) for one in packets]
        merged = merge(frames)
        assert again(frames) == frames
        assert frames[at] in [one.frame for one in merged if not one.gso_size]


def test_nothing_overtakes_within_a_flow_or_past_a_stranger() -> None:
    """A closed packet of the flow, or one without a known flow, is not jumped over."""
    a, b, c, d = stream(4)
    ack = replace(b, payload=b"")
    assert sizes([a, ack, b, c]) == [1, 1, 2]
    frames = [wire(a), wire(b), b"\xff" * 12 + b"\x08\x06" + bytes(40), wire(c), wire(d)]
    assert [one.gso_size for one in merge(frames)] == [MSS, 0, MSS]


def test_flows_between_each_other_merge() -> None:
    """Two flows packet by packet become two packets."""
    one, two = stream(10), stream(10, flow=1)
    mixed = [packet for pair in zip(one, two, strict=True) for packet in pair]
    assert sizes(mixed) == [10, 10]


def test_udp_rules() -> None:
    """Equal sizes, the last shorter; 64 at most; a constant id only with DF; with a checksum."""
    packets = stream(3, proto=17)
    assert sizes(packets) == [3]
    assert sizes([*packets[:2], replace(packets[2], payload=b"x")]) == [3]
    assert sizes([packets[0], replace(packets[1], payload=b"x" * 101), packets[2]]) == [1, 2]
    assert sizes(stream(65, proto=17)) == [64, 1]
    constant = [replace(one, ip_id=0) for one in packets]
    assert sizes(constant) == [3]
    assert sizes([replace(one, df=False) for one in constant]) == [1, 1, 1]
    bare = [wire(one)[:40] + b"\0\0" + wire(one)[42:] for one in packets]
    assert [one.gso_size for one in merge(bare)] == [0, 0, 0]


def test_size_of_an_ip_datagram_is_the_limit() -> None:
    """No merged packet is longer than 65,535 bytes of IP."""
    merged = merge([wire(one) for one in stream(50, size=1400)])
    assert [len(one.frame) - 14 for one in merged] == [40 + 46 * 1400, 40 + 4 * 1400]


packets = st.builds(
    Segment,
    payload=st.sampled_from([b"a" * 50, b"b" * 50, b"c" * 51, b"d" * 7, b""]),
    flow=st.integers(0, 2),
    proto=st.sampled_from([6, 6, 17]),
    family=st.sampled_from([4, 6]),
    seq=st.integers(0, 8).map(lambda n: 50 * n),
    flags=st.sampled_from([0x10, 0x10, 0x10, 0x18, 0x11]),
    ip_id=st.integers(0, 8),
    bad=st.sampled_from([False, False, False, True]),
)


def _flow_of(frame: bytes) -> bytes:
    """Version, protocol and ports: what orders packets."""
    v4 = frame[14] >> 4 == 4
    at = 34 if v4 else 54
    return bytes([v4, frame[23] if v4 else frame[20]]) + frame[at : at + 4]


@settings(max_examples=300)
@given(st.lists(packets, max_size=40))
def test_split_of_merge_is_what_came(batch: list[Segment]) -> None:
    """Per flow, the same packets in the same order, bit for bit but a constant id."""
    frames = [wire(replace(one, df=False)) for one in batch]
    out = again(frames)
    assert sorted(out) == sorted(frames)
    for flow in {_flow_of(frame) for frame in frames}:
        want = [frame for frame in frames if _flow_of(frame) == flow]
        assert [frame for frame in out if _flow_of(frame) == flow] == want


@settings(max_examples=200)
@given(st.binary(max_size=120), st.integers(0, 119), st.integers(0, 255))
def test_any_bytes_have_a_shape(data: bytes, at: int, value: int) -> None:
    """Garbage, cut and changed packets are looked at within their length, none merges wrongly."""
    frames = [wire(one) for one in stream(2, size=20)]
    changed = bytearray(frames[1])
    changed[at % len(changed)] = value
    mixed = [data, frames[0], bytes(changed), frames[1][: at % len(frames[1])]]
    assert sorted(again(mixed)) == sorted(mixed)
