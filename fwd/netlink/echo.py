"""ICMP echo requests of our own: is a peer there, and do packets of a size reach it whole?

For `fwd doctor`; nothing here is on a packet's way.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ipaddress import IPv4Address

__all__ = ["HEADERS_SIZE", "Way", "probe_way"]

HEADERS_SIZE: Final = 28
"""Bytes of IPv4 and ICMP headers: the smallest packet."""

_IP_MTU_DISCOVER = 10
_IP_PMTUDISC_DONT = 0
"""Let packets be cut, as those of the tunnel's socket may be."""
_IP_PMTUDISC_PROBE = 3
"""Set DF, and try sizes that the kernel has seen fail."""
_ECHO = struct.Struct("!BBHHH")
_REQUEST, _REPLY = 8, 0
_TRIES = 2
"""In the time a round has: one packet may get lost."""
_SMALL, _WHOLE, _CUT = 1, 2, 3  # sequence numbers


@dataclass(frozen=True, slots=True)
class Way:
    """Which of the requests a peer has answered."""

    small: bool
    whole: bool
    """The large one with DF."""
    cut: bool
    """The large one without DF; asked only when ``small`` came back and ``whole`` did not."""


def probe_way(source: IPv4Address, peer: IPv4Address, size: int, timeout_s: float) -> Way | None:
    """Ask a peer with a small and a large packet.

    Args:
        source: underlay address of this node.
        peer: that of the other.
        size: of the large packet with its headers, bytes.
        timeout_s: how long each of two rounds may take.

    Returns:
        What came back; None when this process may not send echo requests.

    Raises:
        OSError: there is no way to the peer.
    """
    sock = _open()
    if sock is None:
        return None
    with sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        sock.bind((str(source), 0))
        sock.connect((str(peer), 0))
        back = _ask(sock, {_SMALL: HEADERS_SIZE, _WHOLE: size}, timeout_s)
        if _SMALL in back and _WHOLE not in back:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
            back |= _ask(sock, {_CUT: size}, timeout_s)
    return Way(_SMALL in back, _WHOLE in back, _CUT in back)


def _open() -> socket.socket | None:
    """Open a ping socket, or a raw one; which of them we may have differs from host to host."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            return socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP)
        except PermissionError:
            continue
    return None


def _ask(sock: socket.socket, sizes: dict[int, int], timeout_s: float) -> set[int]:
    """Send a request of each size until all are answered or the time is over."""
    ident = int.from_bytes(os.urandom(2))
    missing = set(sizes)
    began = time.monotonic()
    for turn in range(1, _TRIES + 1):
        for sequence in sorted(missing):
            _send(sock, ident, sequence, sizes[sequence])
        until = began + timeout_s * turn / _TRIES
        while missing and (left_s := until - time.monotonic()) > 0:
            sock.settimeout(left_s)
            try:
                missing.discard(_answered(sock, ident))
            except TimeoutError:
                break
            except OSError as error:
                if error.errno != errno.EMSGSIZE:  # a router's word: too large for the next device
                    raise
    return set(sizes) - missing


def _send(sock: socket.socket, ident: int, sequence: int, size: int) -> None:
    total = (_REQUEST << 8) + ident + sequence  # the data are zeros
    total = (total & 0xFFFF) + (total >> 16)
    header = _ECHO.pack(_REQUEST, 0, ~total & 0xFFFF, ident, sequence)
    try:
        sock.send(header + bytes(size - HEADERS_SIZE))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise


def _answered(sock: socket.socket, ident: int) -> int:
    """Read a message; return the sequence number it answers, 0 = it is no answer to us."""
    data = sock.recv(65535)
    is_raw = sock.type == socket.SOCK_RAW
    if is_raw:
        data = data[(data[0] & 0x0F) * 4 :]
    if len(data) < _ECHO.size:
        return 0
    kind, _, _, whose, sequence = _ECHO.unpack_from(data)
    is_ours = kind == _REPLY and (whose == ident or not is_raw)  # a ping socket's id is its own
    return sequence if is_ours else 0
