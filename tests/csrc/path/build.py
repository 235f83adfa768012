"""Frames of the path rows, built and judged by scapy.

A row's ``frame`` is a mapping: ``src``/``dst`` (addresses), ``ttl``, ``smac``/``dmac``, one of
``tcp``/``udp``/``icmp``/``icmp6``/``proto``, ``payload`` (text), ``frag`` ({id, offset, more}),
``arp``, ``vlan``; ``ethertype`` with ``payload`` for anything else; ``fill`` is a payload of n
bytes; ``df`` sets Don't Fragment;
``quote`` is the packet an ICMP error is about, its ``keep`` first bytes; ``cut`` (keep n bytes) and
``patch`` ({offset: hex}) come last and may break it.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

ICMP6 = {
    1: ICMPv6DestUnreach,
    2: ICMPv6PacketTooBig,
    3: ICMPv6TimeExceeded,
    128: ICMPv6EchoRequest,
    129: ICMPv6EchoReply,
    134: ICMPv6ND_RA,
    135: ICMPv6ND_NS,
    136: ICMPv6ND_NA,
    137: ICMPv6ND_Redirect,
}

__all__ = ["build", "changed", "partial_checksum", "vxlan"]

Spec = dict[str, Any]


def _l4(spec: Spec) -> Packet | None:
    if "tcp" in spec:
        return TCP(**{"flags": "A", **spec["tcp"]})
    if "udp" in spec:
        return UDP(**spec["udp"])
    if "icmp" in spec:
        return ICMP(**spec["icmp"])
    if "icmp6" in spec:
        fields = dict(spec["icmp6"])
        return ICMP6[fields.pop("type")](**fields)
    return None


def _l3(spec: Spec) -> Packet:
    extra: dict[str, Any] = {"src": spec["src"], "dst": spec["dst"]}
    if ":" in spec["src"]:
        if "proto" in spec:
            extra["nh"] = spec["proto"]
        return IPv6(hlim=spec.get("ttl", 64), **extra)
    frag = spec.get("frag", {})
    if frag:
        extra |= {"id": frag["id"], "frag": frag.get("offset", 0)}
        extra["flags"] = "MF" if frag.get("more") else 0
    if spec.get("df"):
        extra["flags"] = "DF"
    if "proto" in spec:
        extra["proto"] = spec["proto"]
    return IP(ttl=spec.get("ttl", 64), **extra)


def build(spec: Spec) -> bytes:
    """The bytes of one frame; checksums and lengths are scapy's unless patched."""
    frame: Packet = Ether(src=spec["smac"], dst=spec["dmac"])
    if "vlan" in spec:
        frame /= Dot1Q(vlan=spec["vlan"])
    if "arp" in spec:
        frame /= ARP(**spec["arp"])
    elif "ethertype" in spec:
        frame.type = spec["ethertype"]
    else:
        frame /= _l3(spec)
        layer = _l4(spec)
        if layer is not None:
            frame /= layer
    if "quote" in spec:
        quoted = build({"smac": spec["smac"], "dmac": spec["dmac"], **spec["quote"]})[14:]
        frame /= Raw(quoted[: spec["quote"].get("keep", len(quoted))])
    if "payload" in spec or "fill" in spec:
        frame /= Raw(spec.get("payload", "x" * spec.get("fill", 0)).encode())
    raw = bytearray(bytes(frame))
    for offset, value in spec.get("patch", {}).items():
        new = bytes.fromhex(value)
        raw[int(offset) : int(offset) + len(new)] = new
    return bytes(raw[: spec.get("cut", len(raw))])


def changed(spec: Spec, changes: Spec) -> bytes:
    """The frame with other TTL or MACs, every checksum made anew by scapy."""
    return build({**spec, **changes})


def partial_checksum(frame: bytes) -> tuple[bytes, int, int]:
    """The frame as a pod with checksum offload sends it.

    Returns:
        It with the folded pseudo-header sum as L4 checksum, csum_start and csum_offset.
    """
    v4 = frame[12:14] == b"\x08\x00"
    start = 14 + ((frame[14] & 15) * 4 if v4 else 40)
    proto = frame[23] if v4 else frame[20]
    offset = {6: 16, 17: 6}[proto]
    length = len(frame) - start
    addresses = frame[26:34] if v4 else frame[22:54]
    total = sum(int.from_bytes(addresses[i : i + 2], "big") for i in range(0, len(addresses), 2))
    total += proto + length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + offset
    return frame[:at] + total.to_bytes(2, "big") + frame[at + 2 :], start, offset


def vxlan(vni: int, frame: bytes) -> bytes:
    """A UDP payload of the tunnel port."""
    return bytes(VXLAN(vni=vni, flags="Instance")) + frame
