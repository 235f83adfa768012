"""Packets of every kind for a node of trace_world.yaml: valid ones, mangled ones, at every port.

Deterministic for one ``random.Random``. Flows repeat, so that conntrack has something to say.
"""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from fwd.control.trace_frames import Segment, build_error, build_frame
from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, PORT_OVERLAY, Packet

__all__ = ["UNKNOWN_PORT", "random_packet"]

UNKNOWN_PORT = 999
SELF = ip_address("192.168.56.105")
PODS: dict[int, tuple[str, str, int]] = {
    2825: ("10.244.0.108", "fd00::108", 1),
    2827: ("10.244.0.109", "fd00::109", 2),
}
TARGETS = [
    "10.244.0.108", "10.244.0.109", "10.244.0.150", "10.244.2.171", "10.244.2.99", "10.244.7.3",
    "10.244.9.9", "10.96.0.10", "10.96.0.11", "10.96.0.12", "192.168.56.105", "8.8.8.8",
    "fd00::108", "fd00::109", "fd00::150", "fd00:2::171", "2001:db8::1", "255.255.255.255",
]  # fmt: skip
SPORTS, DPORTS = [43512, 43513, 8080, 80], [80, 443, 53, 8080, 8090, 8472, 1]
PROTOS = ["tcp", "tcp", "tcp", "udp", "udp", "sctp", "icmp"]
TCP_FLAGS = [0x02, 0x10, 0x12, 0x11, 0x04, 0x18, 0x00, 0x3F]
ANY_MAC = (b"\x02\x00\x00\x00\x00\x01", b"\x02\x00\x00\x00\x00\x02")


def random_packet(rng: random.Random) -> Packet:
    """One packet."""
    port = rng.choice([2825, 2825, 2825, 2827, 2827, PORT_OVERLAY, PORT_OVERLAY, PORT_OVERLAY,
                       PORT_HOST, PORT_NETDEV])  # fmt: skip
    port = UNKNOWN_PORT if rng.random() < 0.01 else port
    frame = _mangled(rng, _frame(rng, port))
    if port == PORT_OVERLAY:
        return _overlay(rng, frame)
    if port == PORT_NETDEV:
        return Packet(frame, port, to_netdev=rng.random() < 0.3)
    if port in PODS and rng.random() < 0.1 and len(frame) > 54:
        return Packet(frame, port, gso_size=rng.choice([0, 1400]), csum_start=34,
                      csum_offset=rng.choice([16, 6]))  # fmt: skip
    return Packet(frame, port)


def _overlay(rng: random.Random, frame: bytes) -> Packet:
    vni = rng.choice([25002] * 20 + [25003, 42, 42, 42, 1, 2, 6, 0xFFFFFF])
    head = struct.pack("!II", 0x08 << 24, vni << 8)
    if rng.random() < 0.05:
        head = rng.randbytes(rng.choice([4, 8]))
    outer = rng.choice(["192.168.56.106"] * 8 + ["192.168.56.107", "192.168.56.99"])
    return Packet(head + frame, PORT_OVERLAY, outer_src=IPv4Address(outer), outer_dst=SELF)


def _frame(rng: random.Random, port: int) -> bytes:
    if rng.random() < 0.03:
        return rng.randbytes(rng.randrange(80))
    if rng.random() < 0.04:
        return _arp(rng, port)
    dst = ip_address(rng.choice(TARGETS))
    src, macs = _source(rng, port, dst)
    if port == PORT_OVERLAY and rng.random() < 0.7:
        dst = ip_address(PODS[rng.choice(list(PODS))][int(src.version == 6)])
    if src.version != dst.version:
        dst = src
    one = Segment(src, dst, rng.choice(PROTOS), rng.choice(SPORTS), rng.choice(DPORTS),
                  flags=rng.choice(TCP_FLAGS), answer=rng.random() < 0.3)  # fmt: skip
    if rng.random() < 0.15:
        asked = Segment(dst, src, one.proto, one.dport, one.sport)
        return build_error(src, dst, build_frame(asked, *macs)[14:], *macs)
    frame = build_frame(one, *macs)
    return _fragment(rng, frame) if src.version == 4 and rng.random() < 0.1 else frame


def _source(rng, port, dst):
    """The address a packet at ``port`` comes from, now and then another's, and its MACs."""
    if port in PODS:
        v4, v6, number = PODS[port]
        macs = (bytes.fromhex(f"968644a6370{number}"), bytes.fromhex(f"d2ad654dd00{number}"))
        own = v6 if dst.version == 6 else v4
        return ip_address(own if rng.random() < 0.95 else "10.244.0.7"), macs
    if dst.version == 6:
        return IPv6Address("fd00:2::171"), ANY_MAC
    behind = ["10.244.2.171"] * 6 + ["10.244.7.3", "10.244.0.150", "8.8.8.8"]
    return ip_address(rng.choice(behind)), ANY_MAC


def _arp(rng: random.Random, port: int) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + rng.randbytes(6)
    source = ip_address(PODS.get(port, ("10.0.0.1",))[0]).packed
    return b"\xff" * 6 + ANY_MAC[0] + b"\x08\x06" + body + source + bytes(6) + rng.randbytes(4)


def _fragment(rng: random.Random, frame: bytes) -> bytes:
    field = rng.choice([0x2000, 0x2000, 0x0001, 0x2001, 0x4000, 0x1FFF])
    raw = bytearray(frame)
    raw[18:22] = struct.pack("!HH", rng.randrange(4), field)
    return bytes(raw)


def _mangled(rng: random.Random, frame: bytes) -> bytes:
    if rng.random() < 0.65 or not frame:
        return frame
    raw = bytearray(frame)
    match rng.randrange(5):
        case 0:
            del raw[rng.randrange(len(raw)) :]
        case 1:
            raw += rng.randbytes(rng.randrange(1, 40))
        case 2:
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        case 3:
            raw[12:12] = struct.pack("!HH", rng.choice([0x8100, 0x88A8]), rng.choice([0, 7, 8]))
        case _:
            at = min(len(raw) - 1, rng.choice([14, 16, 17, 18, 22, 23, 46, 47]))
            raw[at] = rng.randrange(256)
    return bytes(raw)
