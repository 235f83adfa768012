"""Frames from and to TAPs: vnet header, partial checksums, errors of the device."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.csrc.io.rig import NEEDS_CSUM, NODE_MAC, POD, REMOTE, Rig, tcp, vnet

TCP_CSUM_START, TCP_CSUM_OFFSET = 34, 16


@pytest.mark.parametrize("size", [10, 12, 24])
def test_tap_to_tap_keeps_the_partial_checksum(size):
    """A frame for a pod of this node crosses with its checksum as unfinished as it came."""
    with Rig(vnet_size=size) as rig:
        frame = bytearray(tcp(11, POD[12][0]))
        frame[50:52] = b"\x12\x34"  # a partial checksum: anything, nobody may touch it
        rig.send(11, bytes(frame), vnet(NEEDS_CSUM, TCP_CSUM_START, TCP_CSUM_OFFSET, size))
        rig.run()
        [(header, got)] = rig.received(12)
        assert header == vnet(NEEDS_CSUM, TCP_CSUM_START, TCP_CSUM_OFFSET, size)
        assert got[50:52] == b"\x12\x34"
        packet = Ether(got)
        assert (packet.src, packet.dst, packet[IP].ttl) == (NODE_MAC, POD[12][1], 63)


def test_frame_without_checksum_request_crosses_with_an_empty_header():
    """Nothing is claimed about a checksum that nobody checked."""
    with Rig() as rig:
        rig.send(11, tcp(11, POD[12][0]), vnet(flags=2))  # DATA_VALID: the pod's word, not ours
        rig.run()
        assert [header for header, _ in rig.received(12)] == [vnet()]


def test_partial_checksum_is_finished_for_the_wire():
    """The peer gets a TCP checksum that scapy computes too."""
    with Rig() as rig:
        whole = tcp(11, REMOTE, b"odd length here")
        pseudo = struct.pack("!4s4sBBH", whole[26:30], whole[30:34], 0, 6, len(whole) - 34)
        words = struct.unpack(f"!{len(pseudo) // 2}H", pseudo)
        partial = sum(words)
        partial = (partial & 0xFFFF) + (partial >> 16)
        frame = whole[:50] + struct.pack("!H", partial) + whole[52:]
        rig.send(11, frame, vnet(NEEDS_CSUM, TCP_CSUM_START, TCP_CSUM_OFFSET))
        rig.run()
        [datagram] = rig.datagrams()
        assert Ether(datagram[8:])[TCP].chksum == Ether(whole)[TCP].chksum


@pytest.mark.parametrize(
    ("start", "offset"), [(65535, 65535), (65535, 0), (0, 65535), (58, 0), (34, 24)]
)
def test_checksum_offsets_outside_the_frame_are_a_drop(start, offset):
    """INVALID_PACKET_DROPPED, and the frames behind it go on."""
    with Rig() as rig:
        frame = tcp(11, REMOTE, b"")[:58]
        rig.send(11, frame[:58], vnet(NEEDS_CSUM, start, offset))
        rig.send(11, tcp(11, REMOTE))
        assert rig.run() == 2
        assert rig.drops() == {"INVALID_PACKET_DROPPED": 1}
        assert len(rig.datagrams()) == 1


@settings(max_examples=60)
@given(
    frames=st.lists(
        st.tuples(st.binary(min_size=10, max_size=10), st.binary(max_size=120), st.booleans()),
        max_size=8,
    )
)
def test_any_bytes_on_a_tap_are_accounted(frames):
    """Whatever header and bytes a pod sends: each frame is one outcome, none stops the pump."""
    with Rig() as rig:
        for header, noise, on_valid in frames:
            frame = tcp(11, REMOTE)[: 14 + len(noise)] + noise if on_valid else noise
            rig.send(11, frame, header.ljust(12, b"\0"))
        assert rig.run() == len(frames)
        stats = rig.pump.stats()
        dropped = sum(rig.drops().values())
        assert dropped + stats["punts"] + stats["tx_packets"] == len(frames)


def test_refused_frame_is_a_drop_and_the_rest_goes_on():
    """ENDPOINT_WRITE_FAILED for what a full device does not take; the other pod gets its frame."""
    with Rig() as rig:
        rig.ours[12].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        for _ in range(20):
            rig.send(11, tcp(11, POD[12][0], bytes(1000)))
        rig.send(11, tcp(11, REMOTE))
        rig.run()
        delivered = len(rig.received(12))
        assert 0 < delivered < 20
        assert rig.drops() == {"ENDPOINT_WRITE_FAILED": 20 - delivered}
        assert rig.pump.stats()["tap_write_errors"] == 20 - delivered
        assert len(rig.datagrams()) == 1


def test_vanished_device_is_let_go_and_reported_once():
    """ENDPOINT_GONE for what is sent to it from then on."""
    with Rig(kind=socket.SOCK_SEQPACKET) as rig:
        rig.pods.pop(12).close()
        rig.run()
        assert rig.pump.gone() == [12]
        assert rig.pump.gone() == []
        rig.send(11, tcp(11, POD[12][0]))
        rig.run()
        assert rig.drops() == {"ENDPOINT_GONE": 1}


def test_new_device_on_a_vanished_port_is_not_reported_gone():
    """The port works again, and nobody hears of the old device."""
    with Rig(kind=socket.SOCK_SEQPACKET) as rig:
        rig.pods.pop(12).close()
        rig.run()
        rig.ours.pop(12).close()
        rig.add_tap(12)
        assert rig.pump.gone() == []
        rig.send(11, tcp(11, POD[12][0]))
        rig.run()
        assert len(rig.received(12)) == 1
