"""The pump: verdicts to descriptors, ports that come and go, the slow path's ring."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from fwd.datapath.binding import PORT_HOST, PORT_NETDEV, PORT_OVERLAY
from fwd.datapath.errors import DatapathError
from tests.csrc.io.rig import BUDGET_NS, POD, REMOTE, Rig, tcp

ROUTER = "10.0.0.1"


def arp(source: int, target: str) -> bytes:
    """An ARP request of a pod."""
    address, mac = POD[source]
    return bytes(
        Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac, psrc=address, pdst=target)
    )


def unlimited_punts(rig: Rig) -> None:
    """Take the endpoints' token buckets out of the way."""
    settings = replace(rig.dp.settings, punt_rate_pps=1_000_000, punt_burst=100_000)
    rig.dp.set_settings(settings)


def test_arp_is_punted_as_it_came():
    """The slow path gets the frame, its port and the time."""
    with Rig() as rig:
        rig.send(11, arp(11, ROUTER))
        rig.run()
        [punt] = rig.pump.punts()
        assert (punt.port, punt.data) == (11, arp(11, ROUTER))
        assert abs(punt.time_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 10_000_000_000
        assert rig.pump.punts() == []


def test_full_punt_ring_is_a_counted_drop():
    """DROP_RATE_LIMITED beyond 256 waiting frames; packets are forwarded all the same."""
    with Rig() as rig:
        unlimited_punts(rig)
        for _ in range(300):
            rig.send(11, arp(11, ROUTER))
            rig.run()
        rig.send(12, tcp(12, REMOTE))
        rig.run()
        assert rig.drops() == {"DROP_RATE_LIMITED": 44}
        assert rig.pump.stats()["punts_lost"] == 44
        assert len(rig.pump.punts()) == 256
        assert len(rig.datagrams()) == 1


def test_long_punt_is_cut():
    """A punted frame longer than any slow-path protocol keeps its first 2048 bytes."""
    with Rig() as rig:
        frame = bytes(Ether(arp(11, ROUTER)) / Raw(bytes(3000)))
        rig.send(11, frame)
        rig.run()
        assert [punt.data for punt in rig.pump.punts()] == [frame[:2048]]


def test_packet_for_the_stack_needs_a_host_device():
    """NO_HOST_DEVICE without cilium_host; with it the frame goes there."""
    with Rig() as rig:
        rig.send(11, tcp(11, "192.0.2.99"))
        rig.run()
        assert rig.drops() == {"NO_HOST_DEVICE": 1}
        rig.add_tap(PORT_HOST)
        rig.send(11, tcp(11, "192.0.2.99", dport=81))
        rig.run()
        [(_, frame)] = rig.received(PORT_HOST)
        assert (Ether(frame)[IP].dst, Ether(frame)[TCP].dport) == ("192.0.2.99", 81)


def test_what_comes_by_netdev_gets_the_hosts_mac_on_its_way_to_the_stack():
    """Whatever it came with: the stack takes it. What a pod sends has that MAC already."""
    with Rig() as rig:
        for port in (PORT_HOST, PORT_NETDEV):
            rig.add_tap(port)
        rig.send(PORT_NETDEV, tcp(11, "192.0.2.99"))
        rig.run()
        [(_, frame)] = rig.received(PORT_HOST)
        assert bytes.fromhex(Ether(frame).dst.replace(":", "")) == rig.dp.settings.router_mac
        assert frame[6:] == tcp(11, "192.0.2.99")[6:]


def test_slow_path_frame_reaches_its_pod():
    """A frame written by Python stands behind an empty vnet header."""
    with Rig() as rig:
        rig.pump.write(11, b"answer" * 10)
        assert rig.received(11) == [(bytes(12), b"answer" * 10)]
        with pytest.raises(OSError, match="port 99"):
            rig.pump.write(99, b"answer")


@pytest.mark.parametrize(
    ("port", "size", "text"),
    [
        (0, 12, "not the port of an endpoint"),
        (PORT_OVERLAY, 12, "not the port of an endpoint"),
        (1 << 31, 12, "not the port of an endpoint"),
        (13, 11, "vnet header"),
        (11, 12, "remove it first"),
    ],
)
def test_unusable_tap_is_refused(port, size, text):
    """Wrong ports, wrong header sizes and taken ports are errors that say so."""
    with Rig() as rig, pytest.raises(DatapathError, match=text):
        rig.pump.add_tap(port, rig.peer.fileno(), size)


def test_second_tunnel_socket_and_bad_descriptors_are_refused():
    """One socket at a time; what cannot be watched is an error."""
    with Rig() as rig:
        with pytest.raises(DatapathError, match="remove it first"):
            rig.pump.add_udp(rig.peer.fileno())
        with pytest.raises(DatapathError, match="watching a TAP"):
            rig.pump.add_tap(13, 9999, 12)
        rig.pump.remove(PORT_OVERLAY)
        with pytest.raises(DatapathError, match="IPv4 or IPv6"):
            rig.pump.add_udp(rig.pods[11].fileno())
        rig.pump.add_udp(rig.underlay.fileno())


def test_removed_port_is_silent():
    """Frames of a removed port stay unread; removing twice is no error."""
    with Rig() as rig:
        rig.pump.remove(11)
        rig.pump.remove(11)
        rig.send(11, tcp(11, REMOTE))
        assert rig.pump.run(BUDGET_NS, 0) == 0
        rig.pump.add_tap(11, rig.ours[11].fileno(), 12)
        assert rig.run() == 1
