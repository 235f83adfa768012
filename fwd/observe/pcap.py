"""Capture files: frames in, frames out, and the outer headers around an overlay payload.

Times are whole nanoseconds. Reads pcap and pcapng, writes pcap with nanoseconds. Source of the
outer headers: datapath reference 6.1.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

import dpkt

from fwd.model.address import derive_mac

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from fwd.model.rows import Address

__all__ = ["OverlayDatagram", "PcapError", "PcapWriter", "read_pcap", "unwrap_overlay",
           "wrap_overlay"]  # fmt: skip

ETH_HLEN = 14
IPV4_HLEN = 20
UDP_HLEN = 8
SNAPLEN = 262144  # what tcpdump writes; no frame of ours is longer
SPORT_FIRST, SPORT_COUNT = 32768, 28232  # Linux' local port range
NS = 1_000_000_000


class PcapError(Exception):
    """A capture file cannot be read; the text says which and where."""


class OverlayDatagram(NamedTuple):
    """A UDP payload of the tunnel port, with the addresses around it."""

    src: IPv4Address
    dst: IPv4Address
    payload: bytes


def read_pcap(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Give (time in ns, Ethernet frame) of every record; ``name`` stands in errors.

    Raises:
        PcapError: not a capture of Ethernet frames, or cut off.
    """
    whole = _WholeReads(file)
    try:
        reader = dpkt.pcap.UniversalReader(whole)
    except (ValueError, dpkt.UnpackError) as error:
        msg = f"{name}: not a capture file ({error}), write one with tcpdump -w"
        raise PcapError(msg) from error
    if reader.datalink() != dpkt.pcap.DLT_EN10MB:
        msg = f"{name}: link type {reader.datalink()} is not Ethernet, capture on eth0, not `any`"
        raise PcapError(msg)
    count = 0
    try:
        for time_s, frame in reader:
            whole.check()
            count += 1
            yield int(Decimal(str(time_s)) * NS), bytes(frame)
    except (ValueError, EOFError, struct.error, dpkt.UnpackError) as error:
        msg = f"{name}: record {count + 1} is cut off, the {count} before it are done"
        raise PcapError(msg) from error


class _WholeReads:
    """A file that remembers whether its last read was all there: dpkt takes a short one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._missing = False

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._missing = len(data) < size
        return data

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def check(self) -> None:
        if self._missing:
            raise EOFError


class PcapWriter:
    """Writes frames to a capture file with nanoseconds."""

    def __init__(self, file: BinaryIO) -> None:
        self._writer = dpkt.pcap.Writer(file, snaplen=SNAPLEN, nano=True)

    def write(self, time_ns: int, frame: bytes) -> None:
        """Append one Ethernet frame."""
        self._writer.writepkt(frame, Decimal(time_ns) / NS)


def wrap_overlay(payload: bytes, src: Address, dst: Address, *, port: int, flow_hash: int) -> bytes:
    """Build the underlay frame around a tunnel payload, as the kernel's UDP socket would.

    The MACs are made up: the underlay's are not known here. UDP checksum 0, as VXLAN may.
    """
    udp = struct.pack(
        "!4H", SPORT_FIRST + flow_hash % SPORT_COUNT, port, (UDP_HLEN + len(payload)) & 0xFFFF, 0
    )
    length = (IPV4_HLEN + UDP_HLEN + len(payload)) & 0xFFFF  # a super-packet's does not fit: cut
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0) + src.packed + dst.packed
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    ip = head[:10] + struct.pack("!H", 0xFFFF - total) + head[12:]
    ethernet = derive_mac("underlay", str(dst)) + derive_mac("underlay", str(src)) + b"\x08\x00"
    return ethernet + ip + udp + payload


def unwrap_overlay(frame: bytes, port: int) -> OverlayDatagram | None:
    """Take the outer headers off; None = not a whole IPv4 datagram to UDP ``port``."""
    ip = frame[ETH_HLEN:]
    if frame[12:14] != b"\x08\x00" or len(ip) < IPV4_HLEN or ip[0] >> 4 != 4:
        return None
    header_len = (ip[0] & 0x0F) * 4
    length, fragment = struct.unpack_from("!2xH2xH", ip)
    udp = ip[header_len:length]
    if header_len < IPV4_HLEN or ip[9] != dpkt.ip.IP_PROTO_UDP or fragment & 0x3FFF:
        return None
    if len(udp) < UDP_HLEN or length > len(ip):
        return None
    dport, udp_len = struct.unpack_from("!2x2H", udp)
    if dport != port or not UDP_HLEN <= udp_len <= len(udp):
        return None
    return OverlayDatagram(IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), udp[UDP_HLEN:udp_len])
