"""The tunnel socket: its options, and who is named when its port is taken."""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import uvloop

from fwd.netlink.errors import LinkError
from fwd.netlink.netns import open_namespace
from fwd.netlink.shim import in_namespace
from fwd.netlink.tunnel import (
    adopt_tunnel_socket,
    bound_to,
    open_tunnel_socket,
    route_mtu,
    shut_out,
)
from tests.netlink.namespaces import namespace

LOOPBACK = IPv4Address("127.0.0.1")
IP_RECVERR, IP_MTU_DISCOVER, IP_PKTINFO, SO_RXQ_OVFL = 11, 10, 8, 40


def free_port() -> int:
    """A UDP port nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_socket_has_its_options():
    """Bound, non-blocking, destination and overflow reported, DF clear, ICMP errors ignored."""
    port = free_port()
    with uvloop.run(open_tunnel_socket(LOOPBACK, port)) as sock:
        assert sock.getsockname() == ("127.0.0.1", port)
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 1
        assert sock.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == 0
        assert sock.getsockopt(socket.IPPROTO_IP, IP_RECVERR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL) == 1
        if os.geteuid() == 0:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 8 << 20


def test_process_that_owns_the_port_is_named():
    """The text ends with the key that changes the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        text = rf"owned by .*\(pid {os.getpid()}\): stop it or set tunnel\.port"
        with pytest.raises(LinkError, match=text):
            uvloop.run(open_tunnel_socket(LOOPBACK, port))


def test_foreign_address_is_told():
    """An address of no device here."""
    with pytest.raises(LinkError, match=r"on no device of this host"):
        uvloop.run(open_tunnel_socket(IPv4Address("192.0.2.1"), free_port()))


def test_the_mtu_of_a_way_is_the_kernels():
    """Loopback's is its device's; without a way there is none."""
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert route_mtu(LOOPBACK, IPv4Address("127.0.0.2")) == min(mtu, 65535)
    assert route_mtu(LOOPBACK, IPv4Address("192.0.2.1")) is None


@pytest.mark.netns
def test_kernel_vxlan_device_that_owns_the_port_is_named():
    """A kernel device like flannel's: no process has that socket."""
    with namespace() as name:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        vxlan = ["type", "vxlan", "id", "7", "dstport", "8472", "dev", "lo"]
        subprocess.run(["ip", "-n", name, "link", "add", "flannel.1", *vxlan], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "flannel.1", "up"], check=True)
        fd = open_namespace(name)
        try:
            with pytest.raises(LinkError, match=r"VXLAN device flannel\.1: `ip link del flannel"):
                in_namespace(fd, lambda: uvloop.run(open_tunnel_socket(LOOPBACK, 8472)))
        finally:
            os.close(fd)


def test_adopted_socket_is_the_same_one():
    """Address and options are there; other kinds of descriptor are refused and stay open."""
    port = free_port()
    sock = uvloop.run(open_tunnel_socket(LOOPBACK, port))
    with sock, adopt_tunnel_socket(os.dup(sock.fileno())) as again:
        assert bound_to(again) == (LOOPBACK, port)
        assert not again.getblocking()
        assert again.getsockopt(socket.IPPROTO_IP, IP_PKTINFO) == 1
    for kind, text in ((socket.SOCK_STREAM, "no IPv4 UDP"), (socket.SOCK_DGRAM, "no port")):
        with socket.socket(socket.AF_INET, kind) as other:
            with pytest.raises(LinkError, match=text):
                adopt_tunnel_socket(other.fileno())
            os.fstat(other.fileno())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(LinkError, match="IP_PKTINFO"):
            adopt_tunnel_socket(other.fileno())
    read, write = os.pipe()
    with pytest.raises(LinkError, match="no socket"):
        adopt_tunnel_socket(read)
    os.close(read)
    os.close(write)


def test_adopted_socket_is_open():
    """Whoever was killed while it shut others out has not shut them out for good."""
    port = free_port()
    sock = uvloop.run(open_tunnel_socket(LOOPBACK, port))
    with sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        shut_out(sock)
        sender.sendto(b"lost", sock.getsockname())
        with adopt_tunnel_socket(os.dup(sock.fileno())) as again:
            sender.sendto(b"found", sock.getsockname())
            assert again.recv(100) == b"found"
