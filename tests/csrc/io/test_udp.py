"""Datagrams of the tunnel port: batches, addresses, errors of single datagrams."""

from __future__ import annotations

import socket

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from tests.csrc.io.rig import LOST, NODE_MAC, POD, REMOTE, Rig, tcp, vnet

REMOTE_ID, OWN_ID = 220, 111


def from_peer(target: str = POD[11][0], payload: bytes = b"page", dport: int = 40000) -> bytes:
    """A SYN of the remote pod, as the peer wraps it."""
    frame = Ether(src="02:00:00:00:02:20", dst="02:00:00:00:02:fe")
    frame = frame / IP(src=REMOTE, dst=target) / TCP(sport=80, dport=dport, flags="S")
    return bytes(VXLAN(vni=REMOTE_ID, flags=8) / frame / Raw(payload))


def test_frame_for_a_remote_pod_leaves_as_vxlan():
    """One datagram from the node's address: VNI = identity of the sender, the frame behind it."""
    with Rig() as rig:
        frame = tcp(11, REMOTE)
        rig.send(11, frame)
        rig.run()
        data, source = rig.peer.recvfrom(2048)
        assert source == ("127.0.0.1", rig.port)
        assert data[:8] == bytes(VXLAN(vni=OWN_ID, flags=8))
        assert data[8:] == frame


def test_datagram_of_a_peer_reaches_its_pod():
    """The pod gets the inner frame with its own MACs, TTL less one, and an empty vnet header."""
    with Rig() as rig:
        rig.peer.sendto(from_peer(), ("127.0.0.1", rig.port))
        rig.run()
        [(header, frame)] = rig.received(11)
        packet = Ether(frame)
        assert header == vnet()
        assert (packet.src, packet.dst) == (NODE_MAC, POD[11][1])
        assert (packet[IP].ttl, bytes(packet[TCP].payload)) == (63, b"page")


def test_batches_keep_order_and_lose_nothing():
    """200 frames each way, several batches: all arrive, in order."""
    with Rig() as rig:
        for number in range(200):
            rig.peer.sendto(from_peer(payload=b"%d" % number), ("127.0.0.1", rig.port))
        assert rig.run() == 200
        got = [Ether(frame)[TCP].payload.load for _, frame in rig.received(11)]
        assert got == [b"%d" % number for number in range(200)]
        for number in range(200):
            rig.send(11, tcp(11, REMOTE, b"%d" % number))
            rig.run()
        sent = [Ether(data[8:])[TCP].payload.load for data in rig.datagrams()]
        assert sent == [b"%d" % number for number in range(200)]
        assert rig.drops() == {}


def test_one_refused_datagram_does_not_stop_the_batch():
    """UNDERLAY_SEND_FAILED for the peer without a route, everything else of the batch is sent."""
    with Rig() as rig:
        for number in range(10):
            rig.send(11, tcp(11, LOST if number in {0, 4, 9} else REMOTE, b"%d" % number))
        rig.run()
        sent = [Ether(data[8:])[TCP].payload.load for data in rig.datagrams()]
        assert sent == [b"%d" % number for number in (1, 2, 3, 5, 6, 7, 8)]
        assert rig.drops() == {"UNDERLAY_SEND_FAILED": 3}
        assert rig.pump.stats()["udp_send_errors"] == 3


def test_dead_peer_does_not_fail_the_next_datagram():
    """The ICMP port unreachable of a peer that is down reaches neither sends nor reads."""
    with Rig() as rig:
        rig.peer.close()
        for _ in range(5):
            rig.send(11, tcp(11, REMOTE))
            rig.run()
        rig.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        rig.peer.bind(("127.0.0.2", rig.port))
        rig.send(11, tcp(11, REMOTE))
        rig.run()
        assert len(rig.datagrams()) == 1
        rig.peer.sendto(from_peer(), ("127.0.0.1", rig.port))
        rig.run()
        assert len(rig.received(11)) == 1
        assert rig.drops() == {}


def test_send_without_a_socket_is_a_drop():
    """UNDERLAY_SEND_FAILED, counted, and the pump goes on."""
    with Rig() as rig:
        rig.pump.remove(0x10002)
        rig.send(11, tcp(11, REMOTE))
        rig.run()
        assert rig.drops() == {"UNDERLAY_SEND_FAILED": 1}


def test_socket_overflow_is_counted():
    """Datagrams that the kernel dropped show in the statistics with the next one read."""
    with Rig() as rig:
        rig.underlay.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        for _ in range(50):
            rig.peer.sendto(from_peer(payload=bytes(500)), ("127.0.0.1", rig.port))
        arrived = rig.run()
        rig.peer.sendto(from_peer(), ("127.0.0.1", rig.port))
        rig.run()
        assert 0 < arrived < 50
        assert rig.pump.stats()["udp_rx_overflow"] == 50 - arrived


def test_stranger_is_refused():
    """UNKNOWN_PEER: the outer source address comes from the socket, not from the payload."""
    with Rig() as rig:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.9", 0))
            stranger.sendto(from_peer(), ("127.0.0.1", rig.port))
        rig.run()
        assert rig.drops() == {"UNKNOWN_PEER": 1}
        assert rig.received(11) == []


@settings(max_examples=60)
@given(payloads=st.lists(st.one_of(st.binary(max_size=200), st.integers(0, 90)), max_size=40))
def test_any_bytes_on_the_tunnel_port_are_accounted(payloads):
    """Noise and cut-off datagrams of every length: each is one outcome."""
    with Rig() as rig:
        for payload in payloads:
            data = payload if isinstance(payload, bytes) else from_peer()[:payload]
            rig.peer.sendto(data, ("127.0.0.1", rig.port))
        assert rig.run() == len(payloads)
        assert sum(rig.drops().values()) + rig.pump.stats()["tx_packets"] == len(payloads)
