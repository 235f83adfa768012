"""A pump on a datapath, with socket pairs in the place of TAPs and UDP sockets on loopback.

    test <-socketpair-> port 11 (pod a) -+
    test <-socketpair-> port 12 (pod b) -+- pump - 127.0.0.1:P <---> 127.0.0.2:P  the test as peer
                                            +-------> 192.0.2.1     a peer without a route

A datagram socket pair behaves as a TAP does: one read or write, one frame, EAGAIN when there is
none. What only a real TAP does is in tests/netlink and tests/netns.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from fwd.config.load import parse_node_text
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.datapath.binding import Datapath, Pump
from fwd.model.enums import Drop

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOST", "NEEDS_CSUM", "NODE_MAC", "PEER", "POD", "Rig", "tcp", "vnet"]

BUDGET_NS = 1_000_000
NEEDS_CSUM = 1
POD = {11: ("10.0.0.11", "02:00:00:00:00:11"), 12: ("10.0.0.12", "02:00:00:00:00:12")}
NODE_MAC = "02:00:00:00:00:fe"
PEER = "127.0.0.2"
REMOTE = "10.0.2.20"
LOST = "10.0.3.30"
"""A pod behind a peer to which a socket bound to loopback has no way."""

WORLD = """
node: {{name: n1, ip: 127.0.0.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}}
tunnel: {{port: {port}}}
peers:
  - {{name: n2, ip: 127.0.0.2, pod_cidr: 10.0.2.0/24}}
  - {{name: n3, ip: 192.0.2.1, pod_cidr: 10.0.3.0/24}}
conntrack: {{capacity: {{tcp: 4096, any: 4096}}}}
endpoints:
  - {{name: a, id: 11, identity: 111, ip: 10.0.0.11, mac: "02:00:00:00:00:11",
     node_mac: "02:00:00:00:00:fe"}}
  - {{name: b, id: 12, identity: 112, ip: 10.0.0.12, mac: "02:00:00:00:00:12",
     node_mac: "02:00:00:00:00:fe"}}
ipcache:
  - {{prefix: 10.0.2.20/32, identity: 220, tunnel_endpoint: 127.0.0.2}}
"""


def vnet(flags: int = 0, start: int = 0, offset: int = 0, size: int = 12) -> bytes:
    """A virtio_net header without GSO, padded to ``size``."""
    return struct.pack("<BBHHHH", flags, 0, 0, 0, start, offset).ljust(size, b"\0")


def tcp(source: int, target: str, payload: bytes = b"hello", dport: int = 80) -> bytes:
    """A TCP SYN of pod ``source``, with all checksums right."""
    address, mac = POD[source]
    packet: Packet = Ether(src=mac, dst=NODE_MAC) / IP(src=address, dst=target, ttl=64)
    return bytes(packet / TCP(sport=40000, dport=dport, flags="S") / Raw(payload))


def _udp(address: str, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind((address, port))
    return sock


@dataclass
class Rig:
    """Everything of one test; a context manager."""

    vnet_size: int = 12
    kind: int = socket.SOCK_DGRAM
    pods: dict[int, socket.socket] = field(default_factory=dict)
    """Port to the pod's side of its pair."""
    ours: dict[int, socket.socket] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.underlay = _udp("127.0.0.1")
        self.underlay.setsockopt(socket.SOL_SOCKET, 40, 1)  # SO_RXQ_OVFL
        self.port = self.underlay.getsockname()[1]
        self.peer = _udp(PEER, self.port)
        world = compile_world(parse_node_text(WORLD.format(port=self.port), Path("rig.yaml")))
        self.dp = Datapath.create(world.params)
        apply(self.dp, diff(None, world))
        self.pump = Pump(self.dp)
        self.pump.add_udp(self.underlay.fileno())
        for port in POD:
            self.add_tap(port)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.pump.close()
        self.dp.close()
        for sock in (self.underlay, self.peer, *self.pods.values(), *self.ours.values()):
            sock.close()

    def add_tap(self, port: int) -> None:
        """Give ``port`` a device."""
        self.pods[port], self.ours[port] = socket.socketpair(
            socket.AF_UNIX, self.kind | socket.SOCK_NONBLOCK
        )
        self.pump.add_tap(port, self.ours[port].fileno(), self.vnet_size)

    def send(self, port: int, frame: bytes, header: bytes | None = None) -> None:
        """Let a pod send a frame."""
        self.pods[port].send((vnet(size=self.vnet_size) if header is None else header) + frame)

    def run(self) -> int:
        """Run the pump until nothing is left to do; returns packets moved."""
        total = 0
        while moved := self.pump.run(BUDGET_NS, 0):
            total += moved
        return total

    def received(self, port: int) -> list[tuple[bytes, bytes]]:
        """What a pod got: (vnet header, frame) pairs."""
        raw = _drain(self.pods[port])
        return [(data[: self.vnet_size], data[self.vnet_size :]) for data in raw]

    def datagrams(self) -> list[bytes]:
        """What the peer got."""
        return list(_drain(self.peer))

    def drops(self) -> dict[str, int]:
        """Drops so far, by reason name."""
        found: dict[str, int] = {}
        for row in self.dp.metrics():
            if row.reason >= min(d for d in Drop if d) and row.packets:
                name = Drop(row.reason).name
                found[name] = found.get(name, 0) + row.packets
        return found


def _drain(sock: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield sock.recv(1 << 17)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.ECONNREFUSED}:
                raise
            return
