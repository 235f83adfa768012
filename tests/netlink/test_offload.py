"""Offloads are tried, not believed: real TAPs and sockets, in a namespace of their own."""

from __future__ import annotations

import socket
import struct
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from fwd.netlink import offload
from fwd.netlink.errors import LinkError
from fwd.netlink.offload import (
    TAP_CSUM,
    TAP_TSO,
    TAP_USO,
    UdpOffload,
    probe_tap,
    probe_udp,
    start_udp_gro,
    stop_udp_gro,
)
from fwd.netlink.tap import open_tap
from tests.netlink.namespaces import namespace
from tests.netlink.test_host import inside

LOOPBACK = ip_address("127.0.0.1")
SOL_UDP, UDP_SEGMENT, UDP_GRO, SO_RXQ_OVFL = 17, 103, 104, 40


@pytest.mark.netns
def test_this_kernel_takes_everything():
    """Linux 6.2 and newer: checksums, TSO and USO, both ways; the set is left on."""
    tap = open_tap()
    try:
        assert probe_tap(tap.fd, tap.vnet_hdr_size) == TAP_CSUM | TAP_TSO | TAP_USO
        tap.set_offload(TAP_CSUM)
        tap.set_offload(0)
        with pytest.raises(LinkError, match=r"0x400.*features\.offload"):
            tap.set_offload(0x400)
    finally:
        tap.close()


@pytest.mark.netns
def test_an_older_kernel_is_asked_for_less(monkeypatch):
    """A kernel that refuses USO keeps TSO; one that refuses that keeps checksums."""
    tap = open_tap()
    real, forbidden = offload.fcntl.ioctl, [0]

    def refuse(fd: int, request: int, value: int) -> int:
        if value & forbidden[0]:
            raise OSError(22, "Invalid argument")
        return int(real(fd, request, value))

    monkeypatch.setattr(offload.fcntl, "ioctl", refuse)
    try:
        for forbidden[0], left in ((TAP_USO, TAP_CSUM | TAP_TSO), (TAP_TSO, TAP_CSUM), (1, 0)):
            assert probe_tap(tap.fd, tap.vnet_hdr_size) == left
    finally:
        tap.close()


@pytest.mark.netns
def test_super_packets_that_cannot_be_written_are_not_asked_for(monkeypatch):
    """EINVAL for a USO header: pods of such a kernel could not take what we merge."""
    tap = open_tap()
    real = offload.os.write

    def refuse(fd: int, data: bytes) -> int:
        if data[1] == 5:
            raise OSError(22, "Invalid argument")
        return real(fd, data)

    monkeypatch.setattr(offload.os, "write", refuse)
    try:
        assert probe_tap(tap.fd, tap.vnet_hdr_size) == TAP_CSUM | TAP_TSO
    finally:
        tap.close()


def test_trains_arrive_over_loopback():
    """128 datagrams in one send, and out of one receive."""
    assert probe_udp(LOOPBACK) == UdpOffload(128, gro=True)


@pytest.mark.netns
def test_a_host_that_does_not_reach_itself_is_believed():
    """Lo is down: what the kernel accepts is taken, the pump falls back if that was wrong."""
    with namespace() as name:
        for command in (
            ("link", "add", "eth0", "type", "veth", "peer", "name", "eth1"),
            ("addr", "add", "192.0.2.1/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "eth1", "up"),
        ):
            subprocess.run(["ip", "-n", name, *command], check=True)
        probed = inside(name, lambda: probe_udp(ip_address("192.0.2.1")))
    assert probed == UdpOffload(64, gro=True)


class Limited(socket.socket):
    """A socket of an older kernel."""

    limit = 64

    def sendmsg(self, buffers, ancdata=(), flags=0, address=None):  # type: ignore[no-untyped-def]
        """Refuse trains above the limit."""
        if len(b"".join(buffers)) // 8 > self.limit:
            raise OSError(22, "Invalid argument")
        return super().sendmsg(buffers, ancdata, flags, address)


def test_older_kernels_take_shorter_trains(monkeypatch):
    """64 before Linux 6.9; none at all without UDP_SEGMENT."""
    monkeypatch.setattr(offload.socket, "socket", Limited)
    assert probe_udp(LOOPBACK) == UdpOffload(64, gro=True)
    monkeypatch.setattr(Limited, "limit", 0)
    assert probe_udp(LOOPBACK) == UdpOffload(0, gro=True)


def test_tap_constants_are_the_kernels():
    """Where linux/if_tun.h is installed, its values are ours."""
    header = Path("/usr/include/linux/if_tun.h")
    if not header.exists():
        pytest.skip("no linux/if_tun.h")
    text = header.read_text()
    assert "#define TUN_F_CSUM\t0x01" in text
    assert "#define TUN_F_TSO4\t0x02" in text
    assert "#define TUN_F_TSO6\t0x04" in text


@pytest.fixture
def receiver():
    """A bound socket with UDP_GRO that tells what the kernel dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        start_udp_gro(sock)
        yield sock


def test_what_comes_while_trains_go_off_is_dropped_and_counted(receiver):
    """The train that waited is taken with its size; nothing gets in behind it; then all does."""
    taken = []

    def take() -> None:
        taken.append(receiver.recvmsg(65536, 128))
        sender.sendto(b"meanwhile", receiver.getsockname())

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        train = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 4))]
        sender.sendmsg([b"ABCDEFGH"], train, 0, receiver.getsockname())
        assert stop_udp_gro(receiver, take)
        ((data, control, _, _),) = taken
        assert data == b"ABCDEFGH"
        assert (SOL_UDP, UDP_GRO, struct.pack("=i", 4)) in control
        assert receiver.getsockopt(SOL_UDP, UDP_GRO) == 0
        sender.sendmsg([b"ABCDEFGH"], train, 0, receiver.getsockname())
        for want in (b"ABCD", b"EFGH"):
            data, control, _, _ = receiver.recvmsg(65536, 128)
            assert data == want
            assert (socket.SOL_SOCKET, SO_RXQ_OVFL, struct.pack("=I", 1)) in control


def test_trains_stay_on_where_some_wait_on(receiver):
    """Nobody reads: half a second, then all is as before, the way in included."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"first", receiver.getsockname())
        assert not stop_udp_gro(receiver, lambda: None)
        assert receiver.getsockopt(SOL_UDP, UDP_GRO) == 1
        sender.sendto(b"second", receiver.getsockname())
        assert [receiver.recv(100) for _ in range(2)] == [b"first", b"second"]
