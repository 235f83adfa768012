"""The tunnel's UDP socket, and who has its port when we cannot."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from array import array
from ipaddress import ip_address
from typing import TYPE_CHECKING

from fwd.netlink.errors import LinkError
from fwd.netlink.owner import udp_owner

if TYPE_CHECKING:
    from fwd.model.rows import Address

__all__ = [
    "adopt_tunnel_socket",
    "bound_to",
    "let_in",
    "open_tunnel_socket",
    "route_mtu",
    "shut_out",
]

_BUFFER_SIZE = 8 << 20
"""Bytes each way: the bursts of 32 pods, or a pause of 50 ms at 1 Gbit/s."""
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_RXQ_OVFL = 40
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IP_MTU = 14
_IP_PMTUDISC_DONT = 0
_DROP_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""Classic BPF, `ret #0`."""


async def open_tunnel_socket(ip: Address, port: int) -> socket.socket:
    """Bind the socket of the overlay, non-blocking.

    Too large inner packets leave in fragments, with DF clear, as Cilium's do (datapath reference
    6.1): pods have the right MTU already. IP_RECVERR stays off: with it one dead peer silences
    the reader.

    Args:
        ip: the node's underlay address, source of all that is sent.
        port: the tunnel port, here and at every peer.

    Raises:
        LinkError: the port is taken, with its owner's name, or the address is not ours.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind((str(ip), port))
        _tune(sock)
    except OSError as error:
        sock.close()
        raise LinkError(await _why_not(error, ip, port)) from None
    return sock


def route_mtu(source: Address, peer: Address) -> int | None:
    """Return the largest IP datagram the kernel knows to fit the way to ``peer``, bytes.

    Nothing is sent: it is the device's MTU, or what a route or an earlier ICMP error says.

    Returns:
        None when there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((str(source), 0))
            sock.connect((str(peer), 9))
            return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        except OSError:
            return None


def adopt_tunnel_socket(fd: int) -> socket.socket:
    """Take over a socket that another process has opened with ``open_tunnel_socket``.

    Args:
        fd: its descriptor; the caller's when this raises.

    Raises:
        LinkError: it is no bound IPv4 UDP socket, or lacks an option. What lies in it is not ours
            to shake: options are looked at, not set again; only a forgotten ``shut_out`` ends.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise LinkError(f"it is no socket: {error.strerror}") from None
    kind = (sock.family, sock.type, sock.proto)
    if kind != (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP):
        sock.detach()
        raise LinkError("it is no IPv4 UDP socket")
    if sock.getsockname()[1] == 0:
        sock.detach()
        raise LinkError("it is bound to no port")
    if not sock.getsockopt(socket.IPPROTO_IP, _IP_PKTINFO):
        sock.detach()
        raise LinkError("it does not tell where datagrams were sent to (IP_PKTINFO)")
    let_in(sock)  # the process before may have been killed while it shut others out
    sock.setblocking(False)
    return sock


def shut_out(sock: socket.socket) -> None:
    """Let nothing more into the queue, until ``let_in``; the kernel counts it (SO_RXQ_OVFL)."""
    program = array("B", _DROP_ALL)
    fprog = struct.pack("@HP", len(program) // 8, program.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def let_in(sock: socket.socket) -> None:
    """Undo ``shut_out``, if there was one."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def bound_to(sock: socket.socket) -> tuple[Address, int]:
    """Return the address and port of a tunnel socket."""
    host, port = sock.getsockname()[:2]
    return ip_address(host), port


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
    for force, ask in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        sock.setsockopt(socket.SOL_SOCKET, ask, _BUFFER_SIZE)  # as far as sysctl allows
        with contextlib.suppress(PermissionError):  # CAP_NET_ADMIN of another user namespace
            sock.setsockopt(socket.SOL_SOCKET, force, _BUFFER_SIZE)


async def _why_not(error: OSError, ip: Address, port: int) -> str:
    what = f"binding the tunnel socket to {ip}:{port}"
    if error.errno == errno.EADDRINUSE:
        from fwd.netlink.link import vxlan_owner  # noqa: PLC0415 - a restart has no time for it

        if process := udp_owner(port):
            return f"{what}: UDP port {port} is owned by {process}: stop it or set tunnel.port"
        if device := await vxlan_owner(port):
            return (
                f"{what}: UDP port {port} is owned by the kernel's VXLAN device {device}: "
                f"`ip link del {device}` or set tunnel.port"
            )
        return f"{what}: UDP port {port} is in use, `ss -lunp` may tell by whom"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}: the address is on no device of this host: add it or correct node.ip"
    return f"{what}: {error.strerror}"
