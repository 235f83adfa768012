"""pyroute2's asyncio core on uvloop, and netlink sockets inside other namespaces without a fork.

pyroute2 hands its netlink socket to ``create_datagram_endpoint``; uvloop refuses that address
family (pyroute2#1335, uvloop#676). The one overridden method reads the socket with
``add_reader`` instead and feeds pyroute2's own protocol, which runs on every event loop.
tests/netlink/test_shim.py fails loudly when a new pyroute2 no longer fits.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from typing import TYPE_CHECKING, TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.core import CoreDatagramProtocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LoopIPRoute", "in_namespace", "netlink_socket", "open_route"]

_RECEIVE_SIZE = 1 << 18
"""Bytes a netlink message may have: the kernel sends dumps in pieces of at most 32 KiB."""
_READS_PER_TURN = 16
_CLONE_NEWNET = 0x40000000
_T = TypeVar("_T")


class _ReaderTransport(asyncio.DatagramTransport):
    """The part of a datagram transport that pyroute2 uses: reading until it is closed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._protocol = protocol
        self._closed = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        for _ in range(_READS_PER_TURN):
            try:
                data, addr = self._sock.recvfrom(_RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self._protocol.error_received(error)
                return
            self._protocol.datagram_received(data, addr)

    def is_closing(self) -> bool:
        """Tell whether the transport stopped reading."""
        return self._closed

    def close(self) -> None:
        """Stop reading; the socket is pyroute2's to close."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())

    def abort(self) -> None:
        """Stop reading."""
        self.close()


class LoopIPRoute(AsyncIPRoute):  # type: ignore[misc] # pyroute2 has no types
    """``AsyncIPRoute`` that runs on uvloop as well as on asyncio's own loops."""

    async def setup_endpoint(self) -> None:
        """Register the netlink socket with the running loop, once."""
        if getattr(self.local, "transport", None) is not None:
            return
        protocol = CoreDatagramProtocol(
            self.connection_lost, self.enqueue, self._error_event, self.status
        )
        transport = _ReaderTransport(self.event_loop, self.socket, protocol)
        protocol.connection_made(transport)
        self.local.transport, self.local.protocol = transport, protocol


def in_namespace(netns_fd: int, function: Callable[[], _T]) -> _T:
    """Call ``function`` in a thread of its own that has entered a network namespace.

    Sockets keep the namespace they were made in, the thread ends with the call: nothing has to be
    restored and no child process inherits the TAP descriptors.

    Args:
        netns_fd: open descriptor of the namespace.
        function: what to do there; it must be short, the caller waits.

    Returns:
        What ``function`` returned.

    Raises:
        OSError: the namespace cannot be entered (CAP_SYS_ADMIN), or ``function`` raised it.
    """
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            _setns(netns_fd, _CLONE_NEWNET)
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="fwd-netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def open_route(sock: socket.socket | None = None) -> LoopIPRoute:
    """Speak netlink route, in the daemon's namespace or where a socket was opened.

    Args:
        sock: of another namespace (``netlink_socket`` run there); it becomes the result's.

    Returns:
        A ``LoopIPRoute`` to be used as an async context manager on the running loop.
    """
    return LoopIPRoute() if sock is None else LoopIPRoute(fileno=sock.detach())


def netlink_socket() -> socket.socket:
    """Open a netlink route socket where the calling thread is."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE)


def _setns(fd: int, kind: int) -> None:
    """Do what ``os.setns`` does; Python has it from 3.12 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, kind) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"entering a network namespace: {os.strerror(code)}")
