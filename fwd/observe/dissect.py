"""What a captured frame says of itself: the connection part of monitor lines (reference 8.5).

Pure. Takes any bytes, of any length: what is cut off or unknown reads "[unknown]", never an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

__all__ = ["Dissection", "dissect", "host_port", "protocol_name"]

_ETHERNET_LEN = 14
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
_TCP_FLAGS = ((0x02, "SYN"), (0x10, "ACK"), (0x04, "RST"), (0x01, "FIN"))  # Cilium's order
_IPV6_EXTENSIONS = {0, 43, 60, 135}  # hop-by-hop, routing, destination, mobility: all TLV-shaped
_IPV6_FRAGMENT = 44

_ICMP4 = {0: "EchoReply", 3: "DestinationUnreachable", 5: "Redirect", 8: "EchoRequest",
          11: "TimeExceeded", 12: "ParameterProblem"}  # fmt: skip
_ICMP4_CODES = {
    3: {0: "Net", 1: "Host", 2: "Protocol", 3: "Port", 4: "FragmentationNeeded",
        9: "NetAdminProhibited", 10: "HostAdminProhibited", 13: "CommAdminProhibited"},
    11: {0: "TTLExceeded", 1: "FragmentReassemblyTimeExceeded"},
}  # fmt: skip
_ICMP6 = {1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded", 4: "ParameterProblem",
          128: "EchoRequest", 129: "EchoReply", 133: "RouterSolicitation",
          134: "RouterAdvertisement", 135: "NeighborSolicitation",
          136: "NeighborAdvertisement"}  # fmt: skip
_ICMP6_CODES = {
    1: {0: "NoRouteToDst", 1: "AdminProhibited", 3: "Address", 4: "Port"},
    3: {0: "HopLimitExceeded", 1: "FragmentReassemblyTimeExceeded"},
}


@dataclass(frozen=True, slots=True)
class Dissection:
    """One frame in words."""

    connection: str
    """``a:p -> b:q tcp SYN`` and its kin; ``[unknown]`` when there is nothing to say."""
    summary: dict[str, object] = field(default_factory=dict)
    """Cilium's ``summary`` object of ``monitor -j``: l2, l3, l4 as ``{"src", "dst"}``."""


_UNKNOWN = Dissection("[unknown]")


def protocol_name(proto: int) -> str:
    """Name an IP protocol in lower case; unnamed ones read ``proto 47``."""
    return _PROTOCOLS.get(proto, f"proto {proto}")


def host_port(address: object, port: int) -> str:
    """Join address and port, with brackets around an IPv6 address."""
    text = str(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def dissect(frame: bytes) -> Dissection:
    """Read an Ethernet frame, or as much of it as was captured."""
    if len(frame) < _ETHERNET_LEN:
        return _UNKNOWN
    dst, src = _mac(frame[0:6]), _mac(frame[6:12])
    ethertype = int.from_bytes(frame[12:14], "big")
    summary: dict[str, object] = {"l2": {"src": src, "dst": dst}}
    if ethertype == 0x0806:
        return Dissection(f"{src} -> {dst} ARP", {"ethernet": "ARP", **summary})
    if ethertype == 0x0800:
        return _ipv4(frame[_ETHERNET_LEN:], summary)
    if ethertype == 0x86DD:
        return _ipv6(frame[_ETHERNET_LEN:], summary)
    return Dissection(_UNKNOWN.connection, summary)


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _ipv4(packet: bytes, summary: dict[str, object]) -> Dissection:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return Dissection(_UNKNOWN.connection, summary)
    src, dst = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
    offset = int.from_bytes(packet[6:8], "big") & 0x1FFF
    payload = packet[(packet[0] & 0x0F) * 4 :]
    return _transport(packet[9], payload, (src, dst), summary, first=offset == 0)


def _ipv6(packet: bytes, summary: dict[str, object]) -> Dissection:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return Dissection(_UNKNOWN.connection, summary)
    src, dst = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
    proto, payload, first = packet[6], packet[40:], True
    while len(payload) >= 8 and (proto in _IPV6_EXTENSIONS or proto == _IPV6_FRAGMENT):
        size = 8 if proto == _IPV6_FRAGMENT else 8 * (payload[1] + 1)
        if proto == _IPV6_FRAGMENT:
            first = int.from_bytes(payload[2:4], "big") & 0xFFF8 == 0
        proto, payload = payload[0], payload[size:]
    return _transport(proto, payload, (src, dst), summary, first=first)


def _transport(
    proto: int, payload: bytes, ends: tuple[str, str], summary: dict[str, object], *, first: bool
) -> Dissection:
    src, dst = ends
    summary["l3"] = {"src": src, "dst": dst}
    name = protocol_name(proto)
    if not first:
        return Dissection(f"{src} -> {dst} {name} fragment", summary)
    if proto in (1, 58) and len(payload) >= 2:
        names, codes = (_ICMP4, _ICMP4_CODES) if proto == 1 else (_ICMP6, _ICMP6_CODES)
        text = _icmp(names, codes, payload[0], payload[1])
        summary["icmpv4" if proto == 1 else "icmpv6"] = text
        return Dissection(f"{src} -> {dst} {text}", summary)
    if proto not in (6, 17, 132) or len(payload) < 4:
        return Dissection(f"{src} -> {dst} {name}", summary)
    sport, dport = struct.unpack_from("!HH", payload)
    summary["l4"] = {"src": str(sport), "dst": str(dport)}
    flags = ""
    if proto == 6 and len(payload) >= 14:
        flags = ", ".join(text for bit, text in _TCP_FLAGS if payload[13] & bit)
        summary["tcp"] = flags
    connection = f"{host_port(src, sport)} -> {host_port(dst, dport)} {name} {flags}".rstrip()
    return Dissection(connection, summary)


def _icmp(names: dict[int, str], codes: dict[int, dict[int, str]], kind: int, code: int) -> str:
    name = names.get(kind, f"icmp type {kind}")
    detail = codes.get(kind, {}).get(code, "" if code == 0 else str(code))
    return f"{name}({detail})" if detail else name
