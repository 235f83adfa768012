"""What the kernel takes off our hands: offloads of TAPs and UDP sockets, each tried before use.

Super-packets (performance reference A.1) save most of the work of forwarding, and every part of
them came with another kernel. Nothing here asks for a version: each offload is used once on a
scratch device or socket, from the richest set down.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fwd.netlink.tunnel import let_in, shut_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwd.model.rows import Address

__all__ = [
    "TAP_CSUM",
    "TAP_TSO",
    "TAP_USO",
    "UdpOffload",
    "probe_tap",
    "probe_udp",
    "start_udp_gro",
    "stop_udp_gro",
]

TAP_CSUM: Final = 0x01
"""TUN_F_CSUM: we take frames with unfinished checksums; the others need it."""
TAP_TSO: Final = 0x02 | 0x04
"""TUN_F_TSO4 | TUN_F_TSO6: we take TCP super-packets. ECN ones are left out: CWR is not carried."""
TAP_USO: Final = 0x20 | 0x40
"""TUN_F_USO4 | TUN_F_USO6 (Linux 6.2), UDP super-packets."""

_TUNSETOFFLOAD: Final = 0x400454D0
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_TRAINS: Final = (128, 64)
"""Datagrams in one send: UDP_MAX_SEGMENTS since Linux 6.9 and before."""
_SIZE: Final = 8
"""Payload bytes of each datagram of a trial."""
_SEGMENT: Final = 100
"""gso_size of a trial super-packet, which has three of them."""
_WAIT_S: Final = 0.2
_SETTLE_MS: Final = 1
"""What the kernel was delivering has arrived by then: it looks at filter and UDP_GRO on the way."""
_DRAIN_S: Final = 0.5
"""Ten times what reading a full buffer takes."""
_HDR_GSO: Final = {"tcp": (1, 16, 54, 6), "udp": (5, 6, 42, 17)}
"""virtio gso_type, csum_offset, bytes of all headers, IP protocol."""


@dataclass(frozen=True, slots=True)
class UdpOffload:
    """What the socket can do."""

    segments: int
    """Datagrams in one UDP_SEGMENT train; 0 = no trains."""
    gro: bool
    """It delivers trains (UDP_GRO)."""


def probe_tap(fd: int, vnet_hdr_size: int) -> int:
    """Try what a TAP takes, both ways.

    Args:
        fd: of a scratch TAP that is down: what is written to it gets as far as the checks of its
            header, and no further.
        vnet_hdr_size: of the device, bytes.

    Returns:
        The ``TAP_*`` that work, richest set first; TAP_TSO or TAP_USO only when such a frame can be
        written, too.
    """
    usable = TAP_CSUM
    usable |= TAP_TSO if _takes(fd, vnet_hdr_size, "tcp") else 0
    usable |= TAP_USO if _takes(fd, vnet_hdr_size, "udp") else 0
    for offload in (usable, usable & ~TAP_USO, TAP_CSUM):
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, _TUNSETOFFLOAD, offload)
            return offload
    return 0


def _takes(fd: int, vnet_hdr_size: int, kind: str) -> bool:
    """Tell whether a super-packet's header passes: EINVAL = no, EIO = yes, the device is down."""
    gso_type, csum_offset, hdr_len, proto = _HDR_GSO[kind]
    payload = bytes(3 * _SEGMENT)
    total = hdr_len - 14 + len(payload)
    header = struct.pack("=BBHHHH", 1, gso_type, hdr_len, _SEGMENT, 34, csum_offset)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0x4000, 64, proto, 0, bytes(4), bytes(4))
    if kind == "tcp":
        l4 = struct.pack("!HHIIBBHHH", 9, 9, 0, 0, 0x50, 0x10, 1, 0, 0)
    else:
        l4 = struct.pack("!HHHH", 9, 9, total - 20, 0)
    frame = bytes(12) + b"\x08\x00" + ip + l4 + payload
    try:
        os.write(fd, header.ljust(vnet_hdr_size, b"\0") + frame)
    except OSError as error:
        return error.errno == errno.EIO
    return True


def start_udp_gro(sock: socket.socket) -> None:
    """Let the socket deliver trains; OSError when the kernel cannot."""
    sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)


def stop_udp_gro(sock: socket.socket, take: Callable[[], object]) -> bool:
    """Have the socket deliver datagrams one by one; the trains that wait in it are taken before.

    The kernel tells how long the datagrams of a train are only while UDP_GRO is on: one that waits
    when it goes off reads as a single datagram. So for two milliseconds, and as long as it takes
    to read what waits, nothing gets in; the kernel counts what it drops (SO_RXQ_OVFL).

    Args:
        sock: its queue.
        take: reads some of what waits in ``sock``.

    Returns:
        False: something was left after half a second, so trains are still on.
    """
    with contextlib.suppress(OSError):  # before Linux 5.13 it does not tell
        if not sock.getsockopt(_SOL_UDP, _UDP_GRO):
            return True
    look = select.poll()
    look.register(sock, select.POLLIN)
    end_s = time.monotonic() + _DRAIN_S
    shut_out(sock)
    try:
        while look.poll(_SETTLE_MS):
            if time.monotonic() > end_s:
                return False
            take()
        sock.setsockopt(_SOL_UDP, _UDP_GRO, 0)
        time.sleep(_SETTLE_MS / 1000)
    finally:
        let_in(sock)
    return True


def probe_udp(ip: Address) -> UdpOffload:
    """Send trains from the node to itself and look at what arrives.

    Args:
        ip: the node's underlay address.

    Returns:
        What works. Where the host does not reach itself (lo is down), what the kernel accepts;
        the pump falls back when that proves wrong.
    """
    with _bound(ip) as sender, _bound(ip) as receiver:
        try:
            start_udp_gro(receiver)
            gro = True
        except OSError:
            gro = False
        receiver.settimeout(_WAIT_S)
        if not _reaches_itself(sender, receiver):
            return UdpOffload(_TRAINS[-1] if _knows_trains(sender) else 0, gro)
        for segments in _TRAINS:
            try:
                _send_train(sender, receiver, segments)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    continue
                return UdpOffload(0, gro)
            return _arrived(receiver, segments, gro=gro)
    return UdpOffload(0, gro)


def _bound(ip: Address) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((str(ip), 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _reaches_itself(sender: socket.socket, receiver: socket.socket) -> bool:
    try:
        sender.sendto(b"", receiver.getsockname())
        receiver.recv(1)
    except OSError:  # a timeout, too
        return False
    return True


def _send_train(sender: socket.socket, receiver: socket.socket, segments: int) -> None:
    data = b"".join(struct.pack("!Q", number) for number in range(segments))
    control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", _SIZE))]
    sender.sendmsg([data], control, socket.MSG_DONTWAIT, receiver.getsockname())


def _knows_trains(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
    except OSError:
        return False
    return True


def _arrived(receiver: socket.socket, segments: int, *, gro: bool) -> UdpOffload:
    """Judge by what the receiver gets: all datagrams in order, as a train or one by one."""
    want = b"".join(struct.pack("!Q", number) for number in range(segments))
    got, trains = b"", False
    try:
        while len(got) < len(want):
            data, control, _, _ = receiver.recvmsg(65536, 128)
            sizes = [
                struct.unpack("=i", value[:4])[0]
                for level, kind, value in control
                if (level, kind) == (_SOL_UDP, _UDP_GRO)
            ]
            trains |= sizes == [_SIZE]
            got += data
    except TimeoutError:
        return UdpOffload(0, gro=False)
    return UdpOffload(segments if got == want else 0, gro and trains)
