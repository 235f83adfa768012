"""Frames of the path rows, built and judged by scapy.

A row's ``frame`` is a mapping: ``src``/``dst`` (addresses), ``ttl``, ``smac``/``dmac``, one of
``tcp``/``udp``/``icmp``/``icmp6``/``proto``, ``payload`` (text), ``frag`` ({id, offset, more}),
``arp``, ``vlan``; ``ethertype`` with ``payload`` for anything else; ``cut`` (keep n bytes) and
``patch`` ({offset: hex}) come last and may break it.
"""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

__all__ = ["build", "changed", "vxlan"]

Spec = dict[str, Any]


def _l4(spec: Spec) -> Packet | None:
    if "tcp" in spec:
        return TCP(**{"flags": "A", **spec["tcp"]})
    if "udp" in spec:
        return UDP(**spec["udp"])
    if "icmp" in spec:
        return ICMP(**spec["icmp"])
    if "icmp6" in spec:
        kinds = {128: ICMPv6EchoRequest, 129: ICMPv6EchoReply}
        fields = dict(spec["icmp6"])
        return kinds[fields.pop("type")](**fields)
    return None


def _l3(spec: Spec) -> Packet:
    extra: dict[str, Any] = {"src": spec["src"], "dst": spec["dst"]}
    if ":" in spec["src"]:
        return IPv6(hlim=spec.get("ttl", 64), **extra)
    frag = spec.get("frag", {})
    if frag:
        extra |= {"id": frag["id"], "frag": frag.get("offset", 0)}
        extra["flags"] = "MF" if frag.get("more") else 0
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
    if "payload" in spec:
        frame /= Raw(spec["payload"].encode())
    raw = bytearray(bytes(frame))
    for offset, value in spec.get("patch", {}).items():
        new = bytes.fromhex(value)
        raw[int(offset) : int(offset) + len(new)] = new
    return bytes(raw[: spec.get("cut", len(raw))])


def changed(spec: Spec, changes: Spec) -> bytes:
    """The frame with other TTL or MACs, every checksum made anew by scapy."""
    return build({**spec, **changes})


def vxlan(vni: int, frame: bytes) -> bytes:
    """A UDP payload of the tunnel port."""
    return bytes(VXLAN(vni=vni, flags="Instance")) + frame
