"""Capture files: times, link types, damage, and the outer headers of a tunnel payload."""

from __future__ import annotations

import io
from ipaddress import ip_address as ip

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from fwd.observe.pcap import PcapError, PcapWriter, read_pcap, unwrap_overlay, wrap_overlay

SRC, DST = ip("192.0.2.1"), ip("192.0.2.2")


@given(st.lists(st.tuples(st.integers(0, 2**32 * 10**9 - 1), st.binary(max_size=80))))
def test_written_captures_read_back_to_the_nanosecond(records):
    """Frames and times survive the file exactly."""
    file = io.BytesIO()
    writer = PcapWriter(file)
    for time_ns, frame in records:
        writer.write(time_ns, frame)
    file.seek(0)
    assert list(read_pcap(file, "x.pcap")) == records


def test_microsecond_captures_keep_their_times():
    """Tcpdump's usual format is read without rounding errors."""
    file = io.BytesIO()
    dpkt.pcap.Writer(file).writepkt(b"abc", 1_700_000_000.123456)
    file.seek(0)
    assert list(read_pcap(file, "x.pcap")) == [(1_700_000_000_123_456_000, b"abc")]


@pytest.mark.parametrize("data", [b"", b"not a capture at all, but long enough for a header"])
def test_other_files_are_refused_by_name(data):
    """What is no capture is refused with the file's name."""
    with pytest.raises(PcapError, match=r"x\.pcap: not a capture file"):
        list(read_pcap(io.BytesIO(data), "x.pcap"))


def test_other_link_types_are_refused():
    """A capture on `any` has no Ethernet headers, and the text says what to do."""
    file = io.BytesIO()
    dpkt.pcap.Writer(file, linktype=113)
    file.seek(0)
    with pytest.raises(PcapError, match="link type 113 is not Ethernet, capture on eth0"):
        list(read_pcap(file, "x.pcap"))


@pytest.mark.parametrize("missing", [1, 20])
def test_cut_off_captures_give_what_is_whole(missing):
    """A record that is not all there is an error after the whole ones."""
    file = io.BytesIO()
    writer = PcapWriter(file)
    writer.write(1, b"first" * 4)
    writer.write(2, b"other" * 4)
    records = read_pcap(io.BytesIO(file.getvalue()[:-missing]), "x.pcap")
    assert next(records) == (1, b"first" * 4)
    with pytest.raises(PcapError, match="record 2 is cut off, the 1 before it are done"):
        next(records)


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_overlay_payload_survives_its_outer_headers(payload, flow_hash):
    """Wrap and unwrap are inverse, and scapy finds correct headers in between."""
    frame = wrap_overlay(payload, SRC, DST, port=8472, flow_hash=flow_hash)
    assert unwrap_overlay(frame, 8472) == (SRC, DST, payload)
    parsed = Ether(frame)
    assert 32768 <= parsed[UDP].sport < 61000
    again = parsed.copy()
    del again[IP].chksum
    assert bytes(again) == frame


@given(st.integers(0, 41), st.integers(0, 255))
def test_damaged_headers_never_unwrap_to_another_length(position, value):
    """With any header byte changed the payload is still whole, or there is none."""
    payload = bytes(range(50))
    frame = bytearray(wrap_overlay(payload, SRC, DST, port=8472, flow_hash=1))
    frame[position] = value
    inner = unwrap_overlay(bytes(frame), 8472)
    assert inner is None or payload.startswith(inner.payload) or payload.endswith(inner.payload)


@given(st.binary(max_size=60))
def test_any_bytes_unwrap_or_do_not(frame):
    """Garbage is no overlay datagram; it never raises."""
    inner = unwrap_overlay(frame, 8472)
    assert inner is None or len(inner.payload) < len(frame)


def test_padding_behind_the_datagram_is_left_off():
    """Ethernet padding is not payload."""
    frame = wrap_overlay(b"abc", SRC, DST, port=8472, flow_hash=0) + bytes(15)
    assert unwrap_overlay(frame, 8472).payload == b"abc"
    assert unwrap_overlay(frame, 4789) is None
