"""Packets to peers: trains, super-packets in pieces, what happens when the kernel refuses."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fwd.datapath.packet import (
    OFFLOAD_MERGE_TCP,
    OFFLOAD_MERGE_UDP,
    OFFLOAD_UDP_GRO,
    OFFLOAD_UDP_SEGMENT,
)
from tests.csrc.base.offload import Super
from tests.csrc.base.test_gso import super_of
from tests.csrc.io.rig import LOST, NODE_MAC, POD, REMOTE, Rig, vnet
from tests.models.checksum import checksum
from tests.models.gso import Segment, split

ALL = OFFLOAD_UDP_SEGMENT | OFFLOAD_UDP_GRO | OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP
LIMIT = 64


def from_pod(port: int, target: str, one: Segment, size: int) -> Super:
    """A super-packet of a pod to ``target``."""
    whole = super_of(replace(one, ttl=64), size)
    address, mac = POD[port]
    ip = bytearray(whole.frame[14:34])
    ip[12:16], ip[16:20] = socket.inet_aton(address), socket.inet_aton(target)
    ip[10:12] = bytes(2)
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    at = whole.csum_start + whole.csum_offset
    l4 = whole.frame[34:]
    pseudo = bytes(ip[12:20]) + struct.pack("!BBH", 0, one.proto, len(l4))
    partial = struct.pack("!H", 0xFFFF ^ checksum(pseudo))
    head = bytes.fromhex((NODE_MAC + mac).replace(":", "")) + b"\x08\x00"
    frame = head + bytes(ip) + l4
    return replace(whole, frame=frame[:at] + partial + frame[at + 2 :])


def header(one: Super, size: int = 12) -> bytes:
    """The vnet header a TAP would put before it."""
    offsets = (one.csum_start, one.csum_offset)
    return struct.pack("<BBHHHH", 1, one.gso_type, 0, one.gso_size, *offsets).ljust(size, b"\0")


def udp(port: int, target: str, payload: bytes, sport: int = 5000) -> bytes:
    """A small datagram of a pod."""
    address, mac = POD[port]
    frame = Ether(src=mac, dst=NODE_MAC) / IP(src=address, dst=target) / UDP(sport=sport, dport=53)
    return bytes(frame / Raw(payload))


def test_equal_datagrams_to_a_peer_leave_as_one_train():
    """20 of one length in one send; a shorter one may end it, a longer one begins the next."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, LIMIT)
        frames = [udp(11, REMOTE, b"%04d" % n) for n in range(20)]
        frames += [udp(11, REMOTE, b"x"), udp(11, REMOTE, b"longer")]
        for frame in frames:
            rig.send(11, frame)
        rig.run()
        assert [data[8:] for data in rig.datagrams()] == frames
        stats = rig.pump.stats()
        assert (stats["udp_tx_trains"], stats["udp_tx_train_datagrams"]) == (1, 21)
        assert stats["udp_tx_datagrams"] == 22


def test_trains_are_no_longer_than_the_kernel_takes():
    """With a limit of 8, 20 datagrams are three sends."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, 8)
        for number in range(20):
            rig.send(11, udp(11, REMOTE, b"%04d" % number))
        rig.run()
        assert len(rig.datagrams()) == 20
        assert rig.pump.stats()["udp_tx_trains"] == 3


def test_peers_do_not_part_each_others_trains():
    """Two flows to two peers, packet by packet: one train for the one that can be reached."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, LIMIT)
        for number in range(10):
            rig.send(11, udp(11, REMOTE, b"%04d" % number))
            rig.send(11, udp(11, LOST, b"%04d" % number))
        rig.run()
        assert len(rig.datagrams()) == 10
        assert rig.pump.stats()["udp_tx_trains"] == 1
        assert rig.drops() == {"UNDERLAY_SEND_FAILED": 10}


def test_super_packet_leaves_as_its_wire_packets():
    """64 KB of TCP: every packet as the twin makes it, inside the tunnel header of the first."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, LIMIT)
        one = from_pod(11, REMOTE, Segment(bytes(range(256)) * 250, flags=0x18, ip_id=9), 1398)
        rig.send(11, one.frame, header(one))
        rig.run()
        got = rig.datagrams()
        assert [data[8:] for data in got] == split(one.frame, 1398)
        assert len({data[:8] for data in got}) == 1
        stats = rig.pump.stats()
        assert (stats["tap_rx_super"], stats["udp_tx_trains"]) == (1, 2)
        assert stats["udp_tx_datagrams"] == len(got)


def test_super_packet_without_udp_segment_is_sent_piece_by_piece():
    """The same bytes on the wire, one message each."""
    with Rig() as rig:
        rig.pump.set_offload(0, 1)
        one = from_pod(11, REMOTE, Segment(bytes(9000), proto=17), 1000)
        rig.send(11, one.frame, header(one))
        rig.run()
        assert [data[8:] for data in rig.datagrams()] == split(one.frame, 1000)
        assert rig.pump.stats()["udp_tx_trains"] == 0


def test_many_small_pieces_need_more_than_one_queue():
    """1,500 segments of 40 bytes: the queue is sent and filled again, order kept."""
    with Rig() as rig:
        rig.peer.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        rig.pump.set_offload(ALL, LIMIT)
        one = from_pod(11, REMOTE, Segment(bytes(60000)), 40)
        rig.send(11, one.frame, header(one))
        rig.run()
        assert [data[8:] for data in rig.datagrams()] == split(one.frame, 40)


def test_contradicting_gso_fields_are_a_drop():
    """A header that speaks of another transport header than the frame's is dropped as invalid."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, LIMIT)
        one = from_pod(11, REMOTE, Segment(bytes(3000)), 1000)
        for bad in (
            replace(one, gso_type=5),
            replace(one, gso_type=4),
            replace(one, gso_type=3),
            replace(one, csum_start=30),
            replace(one, csum_offset=0),
        ):
            rig.send(11, bad.frame, header(bad))
        rig.run()
        assert rig.datagrams() == []
        assert rig.drops() == {"INVALID_PACKET_DROPPED": 5}


def test_partial_checksum_cannot_rewrite_what_policy_saw():
    """A pod that aims its checksum at addresses or ports is dropped, TCP or not."""
    with Rig() as rig:
        frame = udp(11, REMOTE, b"hello")
        for start, offset in ((26, 0), (34, 0), (34, 2), (30, 10), (36, 4)):
            rig.send(11, frame, vnet(1, start, offset))
        rig.run()
        assert rig.datagrams() == []
        assert rig.drops() == {"INVALID_PACKET_DROPPED": 5}


def test_refused_trains_go_singly_and_turn_the_offload_off():
    """Trains longer than the kernel takes: nothing is lost, after 16 refusals no more are tried."""
    with Rig() as rig:
        rig.peer.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        rig.pump.set_offload(ALL, 1000)
        one = from_pod(11, REMOTE, Segment(bytes(30000)), 100)
        for _ in range(20):
            rig.send(11, one.frame, header(one))
            rig.run()
        assert [data[8:] for data in rig.datagrams()] == split(one.frame, 100) * 20
        assert rig.pump.stats()["udp_segment_refused"] == 16
        assert rig.pump.offload == ALL & ~OFFLOAD_UDP_SEGMENT
        assert rig.drops() == {}


@pytest.mark.parametrize("size", [1472, 1473])
def test_no_pod_can_turn_the_offload_off(size):
    """Datagrams above the tunnel's MTU that may be cut go alone: in a train they are refused."""
    with Rig() as rig:
        rig.dp.set_settings(replace(rig.dp.settings, tunnel_mtu=1500))
        rig.pump.set_offload(ALL, LIMIT)
        for _ in range(4):
            rig.send(11, udp(11, REMOTE, bytes(size)))
        rig.run()
        assert [len(data) for data in rig.datagrams()] == [8 + 14 + 28 + size] * 4
        assert rig.pump.stats()["udp_tx_trains"] == (1 if size == 1472 else 0)


def test_super_packet_nobody_can_be_sent_is_one_drop():
    """All its pieces fail: one packet came in, one is dropped."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, LIMIT)
        one = from_pod(11, LOST, Segment(bytes(30000)), 1000)
        rig.send(11, one.frame, header(one))
        rig.run()
        assert rig.drops() == {"UNDERLAY_SEND_FAILED": 1}


def test_super_packet_to_a_pod_of_this_node_crosses_untouched():
    """TAP to TAP: payload, gso fields and partial checksum as they came; hdr_len is our own."""
    with Rig() as rig:
        one = from_pod(11, POD[12][0], Segment(bytes(range(256)) * 200, options=bytes(12)), 1398)
        rig.send(11, one.frame, header(one))
        rig.run()
        [(head, frame)] = rig.received(12)
        assert frame[34:] == one.frame[34:]
        assert struct.unpack("<BBHHHH", head[:10]) == (1, 1, 66, 1398, 34, 16)
        assert Ether(frame)[IP].ttl == 63
        assert rig.pump.stats()["tap_tx_super"] == 1


def trains(rig: Rig, frames: list[bytes], size: int) -> None:
    """Let the peer send frames of equal length in one train, as another node would."""
    data = b"".join(frames)
    control = [(17, 103, struct.pack("=H", size))]
    rig.peer.sendmsg([data], control, 0, ("127.0.0.1", rig.port))


def from_peer(count: int, payload: int, flags: str = "A") -> list[bytes]:
    """TCP of the remote pod, neighbours, wrapped for the tunnel."""
    frames = []
    for number in range(count):
        frame = Ether(src="02:00:00:00:02:20", dst="02:00:00:00:02:fe")
        frame = frame / IP(src=REMOTE, dst=POD[11][0], id=number + 1, flags="DF")
        frame = frame / TCP(sport=80, dport=4, seq=number * payload, ack=9, flags=flags)
        frames.append(b"\x08\0\0\0\0\0\xdc\0" + bytes(frame / Raw(bytes([number]) * payload)))
    return frames


def test_train_of_a_peer_reaches_its_pod_as_one_super_packet():
    """UDP_GRO in, one TAP write out, with partial checksum and the segments' size."""
    with Rig() as rig:
        rig.underlay.setsockopt(17, 104, 1)
        rig.pump.set_offload(ALL, LIMIT)
        frames = from_peer(30, 1000)
        trains(rig, frames, len(frames[0]))
        rig.run()
        [(head, frame)] = rig.received(11)
        assert struct.unpack("<BBHHHH", head[:10]) == (1, 1, 54, 1000, 34, 16)
        assert frame[54:] == b"".join(bytes([n]) * 1000 for n in range(30))
        assert (Ether(frame)[IP].len, Ether(frame)[IP].ttl) == (40 + 30000, 63)
        stats = rig.pump.stats()
        assert (stats["udp_rx_datagrams"], stats["udp_rx_merged"]) == (30, 29)
        assert (stats["tap_tx_super"], stats["tap_tx_super_bytes"]) == (1, len(frame))


def test_train_without_merge_reaches_its_pod_packet_by_packet():
    """UDP_GRO alone: what came as a train is delivered as the datagrams it is."""
    with Rig() as rig:
        rig.underlay.setsockopt(17, 104, 1)
        rig.pump.set_offload(OFFLOAD_UDP_GRO, 1)
        frames = from_peer(50, 100)
        trains(rig, frames, len(frames[0]))
        rig.run()
        got = rig.received(11)
        assert [frame[54:] for _, frame in got] == [bytes([n]) * 100 for n in range(50)]
        assert {head for head, _ in got} == {vnet()}


def test_datagrams_merge_without_udp_gro_too():
    """What comes in one recvmmsg merges, however the kernel delivered it."""
    with Rig() as rig:
        rig.pump.set_offload(OFFLOAD_MERGE_TCP, 1)
        for data in from_peer(10, 500):
            rig.peer.sendto(data, ("127.0.0.1", rig.port))
        rig.run()
        assert len(rig.received(11)) == 1
        assert rig.pump.stats()["udp_rx_merged"] == 9


def test_peers_are_not_merged_with_each_other():
    """The same inner flow from two outer sources: the second is a drop of its own, not a part."""
    with Rig() as rig:
        rig.pump.set_offload(ALL, LIMIT)
        first, second = from_peer(2, 100)
        rig.peer.sendto(first, ("127.0.0.1", rig.port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.3", 0))
            stranger.sendto(second, ("127.0.0.1", rig.port))
        rig.run()
        assert len(rig.received(11)) == 1
        assert rig.drops() == {"UNKNOWN_PEER": 1}
