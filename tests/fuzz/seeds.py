"""Where the fuzzers start: packets of the path rows and of the scenarios, as inputs of each target.

An input is what world.h calls records: {ctl, arg, be16 length, frame}; a row or scenario is one
input, so that connections have their answers behind them.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from scapy.layers.inet import IP, UDP

from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, PORT_OVERLAY, Packet
from tests.csrc.path import rows as path_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TARGETS", "write_seeds"]

TESTS = Path(__file__).resolve().parents[1]
TARGETS = ("parse", "container", "overlay", "host", "icmp", "fragments", "attach", "vnet",
           "merge")  # fmt: skip
CURL, LOCAL = 2825, 2827
CLASSES = {CURL: 0, LOCAL: 1, PORT_OVERLAY: 2, PORT_HOST: 4, PORT_NETDEV: 5}
PORTS = {"curl": CURL, "kube-system/curl": CURL, "local": LOCAL, "overlay": PORT_OVERLAY,
         "cilium_host": PORT_HOST, "netdev": PORT_NETDEV}  # fmt: skip
LEGACY, TO_NETDEV, NOBODY = 3, 6, 7
TAIL, FOREIGN = 8, 128
PARTS = 13
"""Header and tables of an arena."""
VXLAN, ETH, IP_HLEN, ICMP = 8, 14, 20, 8


def write_seeds(directory: Path) -> dict[str, int]:
    """Write ``directory/<target>/*``; returns how many files each target has."""
    packets = [*_row_packets(), *_scenario_packets()]
    count = {}
    for target in TARGETS:
        room = directory / target
        room.mkdir(parents=True, exist_ok=True)
        seeds = {seed for seed in _seeds(target, packets) if seed}
        for number, seed in enumerate(sorted(seeds)):
            (room / f"seed-{number:03}").write_bytes(seed)
        count[target] = len(seeds)
    return count


def _row_packets() -> Iterator[list[Packet]]:
    """The steps of every path row."""
    for path in sorted((TESTS / "csrc/path/rows").glob("*.yaml")):
        if path.stem == "defaults":
            continue
        for row in path_rows.load(path.stem).values():
            steps = [step for step in row["steps"] if step.get("port") in PORTS]
            yield [path_rows.packet_of(step, PORTS) for step in steps]


def _scenario_packets() -> Iterator[list[Packet]]:
    """The packets of every scenario that node 1 gets."""
    for path in sorted(TESTS.glob("scenarios/*/steps.jsonl")):
        steps = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        frames = [step for step in steps if "frame" in step and step.get("port") in PORTS]
        yield [Packet(bytes.fromhex(step["frame"]), PORTS[step["port"]]) for step in frames]


def _seeds(target: str, packets: list[list[Packet]]) -> Iterator[bytes]:
    for one in packets:
        match target:
            case "container" | "overlay" | "host":
                yield b"".join(map(_record, one))
            case "parse":
                yield from (struct.pack("!HH", 34, 16) + _inner(packet) for packet in one)
            case "vnet":
                yield from (struct.pack("<BBHHHH", 1, 1, 54, 1400, 34, 16) + _inner(packet)
                            for packet in one)  # fmt: skip
            case "merge":
                yield b"".join(_train(packet) for packet in one if packet.port == PORT_OVERLAY)
            case "icmp":
                yield from (_said(_inner(packet)) for packet in one)
    if target == "icmp":
        yield from _outside_seeds()
    if target == "fragments":
        yield from _fragment_seeds()
    if target == "attach":
        yield from (bytes([mode]) for mode in (0, 1, 3))
        yield from (
            bytes([3]) + struct.pack("!BHBB", part, at, value, 3)
            for part in range(PARTS)
            for at in range(0, 128, 4)
            for value in (0x01, 0xFF)
        )
        yield bytes(1) + b"FWDARENA" + bytes(256)


def _record(packet: Packet) -> bytes:
    kind = CLASSES[packet.port]
    if packet.to_netdev:
        kind = TO_NETDEV
    elif packet.port == PORT_OVERLAY and str(packet.outer_src).endswith(".107"):
        kind = LEGACY
    head = struct.pack("!BBH", kind | FOREIGN | TAIL, 0, len(packet.frame))
    return head + packet.frame


def _train(packet: Packet) -> bytes:
    """A datagram and three neighbours, as fuzz_merge.c reads them."""
    return struct.pack("!H", len(packet.frame)) + packet.frame + 3 * struct.pack("!H", 1 << 15)


def _inner(packet: Packet) -> bytes:
    return packet.frame[VXLAN:] if packet.port == PORT_OVERLAY else packet.frame


def _said(frame: bytes) -> bytes:
    """An error that quotes the frame's IP packet, and what an error in it quotes itself."""
    about = frame[ETH:][:64]
    quoted = frame[ETH + IP_HLEN + ICMP :][:64] if frame[23:24] == b"\x01" else b""
    return b"".join(
        struct.pack("!BBH", way, 1, len(text)) + text
        for way in range(8)
        for text in (about, quoted)
        if text
    )


def _outside_seeds() -> Iterator[bytes]:
    """Errors about the flows of a client outside that fuzz_icmp.c opens, by its ways 4 to 7."""
    node, client, local = "192.168.56.105", "203.0.113.9", "10.244.0.109"
    router, nginx = "10.244.0.150", "10.244.2.171"
    for sport in range(43512, 43516):
        service = 30080 if sport & 1 else 30081
        for way, src, dst, ports in (
            (4, node, client, (service, sport)),
            (5, client, local, (sport, 8080)),
            (6, router, nginx, (sport, 8080)),
            (7, node, client, (sport, 53)),
        ):
            quoted = bytes(IP(src=src, dst=dst) / UDP(sport=ports[0], dport=ports[1]) / bytes(8))
            yield struct.pack("!BBH", way, 4, len(quoted)) + quoted


def _fragment_seeds() -> Iterator[bytes]:
    """Struct piece of fuzz_fragments.c: way, id, proto, offset, more, len, dport, sport."""
    for way in range(8):
        for proto in range(4):
            first = bytes([way, 1, proto, 0, 1, 24, 0, 0])
            later = bytes([way, 1, proto, 13, 0, 16, 0, 0])
            denied = bytes([way, 2, proto, 0, 1, 24, 1, 0])
            yield first + later
            yield later + first
            yield denied + later.replace(b"\x01", b"\x02", 1) + first + later
