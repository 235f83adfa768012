"""The slow path (D11): answers to the frames the datapath punts. Pure: opens no descriptor.

ARP is answered for any target but the pod's own, a neighbour solicitation for the router and for
other pods of this node (the datapath has dropped the others), ICMP echo to a router address.
Rates are limited before a frame comes here, by the token bucket of its endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dpkt

if TYPE_CHECKING:
    from collections.abc import Collection

    from fwd.model.rows import Address

__all__ = ["answer"]

_ETH_LEN = 14
_ARP_LEN = 42
"""Ethernet header and an ARP packet for IPv4."""
_BROADCAST = b"\xff" * 6
_NO_ADDRESS = bytes(4)
_REPLY_TTL = 64
_PROTO_ICMP = bytes([dpkt.ip.IP_PROTO_ICMP])
_IP6_LEN = 40
_ICMP6_LEN = 8
_NS_LEN = 24
"""A neighbour solicitation without options."""
_NO_ADDRESS6 = bytes(16)
_ND_HOP_LIMIT = 255
_ECHO6 = bytes([dpkt.icmp6.ICMP6_ECHO_REQUEST, 0])
_SOLICIT = bytes([dpkt.icmp6.ND_NEIGHBOR_SOLICIT, 0])
"""Type and code."""
_NA_ROUTER, _NA_SOLICITED, _NA_OVERRIDE = 0x80, 0x40, 0x20
_OPTION_TARGET_MAC = b"\x02\x01"
"""Type 2, length 1 (times 8 bytes)."""


def answer(
    frame: bytes,
    endpoint_mac: bytes,
    node_mac: bytes,
    own_ips: Collection[Address],
    router_ips: Collection[Address],
) -> bytes | None:
    """Build the frame that answers a punted one, to be written back to the port it came from.

    Args:
        frame: Ethernet frame as it left the datapath: an echo request has its TTL already
            decremented and its destination MAC rewritten; ARP is as the pod sent it.
        endpoint_mac: the pod's MAC, 6 bytes.
        node_mac: the node's MAC on that link, 6 bytes: what the pod sees as its gateway's.
        own_ips: the pod's addresses; asking for them is duplicate detection and stays unanswered.
        router_ips: addresses that answer an echo request; the IPv6 one speaks for all neighbours.

    Returns:
        The whole frame, or None when silence is the answer.

    Source:
        Cilium's ``arp_respond`` (bpf/lib/arp.h) and ``icmp6_handle_ns`` (bpf/lib/icmp6.h); the
        echo is what the host's stack would do.
    """
    ethertype = frame[12:_ETH_LEN]
    if ethertype == b"\x08\x06":
        return _answer_arp(frame, node_mac, {ip.packed for ip in own_ips})
    if ethertype == b"\x08\x00":
        datagram = _answer_echo(frame[_ETH_LEN:], {ip.packed for ip in router_ips})
    elif ethertype == b"\x86\xdd":
        datagram = _answer_icmp6(frame[_ETH_LEN:], node_mac, own_ips, router_ips)
    else:
        return None
    return None if datagram is None else endpoint_mac + node_mac + ethertype + datagram


def _answer_arp(frame: bytes, node_mac: bytes, own: Collection[bytes]) -> bytes | None:
    if len(frame) < _ARP_LEN or frame[:6] not in {_BROADCAST, node_mac}:
        return None
    request = dpkt.arp.ARP(frame[_ETH_LEN:_ARP_LEN])
    wire_format = (request.hrd, request.pro, request.hln, request.pln, request.op)
    if wire_format != (dpkt.arp.ARP_HRD_ETH, dpkt.arp.ARP_PRO_IP, 6, 4, dpkt.arp.ARP_OP_REQUEST):
        return None
    # A probe asks whether anybody has the address, an announcement says that the pod has it:
    # an answer to either would make the pod give its address up (RFC 5227).
    if request.spa in {_NO_ADDRESS, request.tpa} or request.tpa in own:
        return None
    reply = dpkt.arp.ARP(
        op=dpkt.arp.ARP_OP_REPLY,
        sha=node_mac,
        spa=request.tpa,
        tha=request.sha,
        tpa=request.spa,
    )
    return frame[6:12] + node_mac + b"\x08\x06" + bytes(reply)


def _answer_echo(datagram: bytes, router: Collection[bytes]) -> bytes | None:
    """Return the IPv4 datagram of the echo reply; fragments and damaged requests get none."""
    if datagram[9:10] != _PROTO_ICMP:  # asked first: dpkt would parse other protocols' headers
        return None
    try:
        request = dpkt.ip.IP(datagram)
    except dpkt.UnpackError:
        return None
    if request.v != 4 or request.len > len(datagram) or request.dst not in router:
        return None
    message = datagram[request.hl * 4 : request.len]
    if request.mf or request.offset or not _is_echo_request(message):
        return None
    reply = dpkt.ip.IP(
        tos=request.tos,
        id=request.id,
        ttl=_REPLY_TTL,
        p=dpkt.ip.IP_PROTO_ICMP,
        src=request.dst,
        dst=request.src,
        data=dpkt.icmp.ICMP(type=dpkt.icmp.ICMP_ECHOREPLY, code=0, data=message[4:]),
    )
    return bytes(reply)


def _is_echo_request(message: bytes) -> bool:
    if len(message) < 8 or message[:2] != bytes([dpkt.icmp.ICMP_ECHO, 0]):
        return False
    return bool(dpkt.in_cksum(message) == 0)


def _answer_icmp6(
    datagram: bytes,
    node_mac: bytes,
    own_ips: Collection[Address],
    router_ips: Collection[Address],
) -> bytes | None:
    """Return the datagram that answers an ICMPv6 request; damaged ones get none."""
    if len(datagram) < _IP6_LEN + _ICMP6_LEN or datagram[0] >> 4 != 6:
        return None
    end = _IP6_LEN + int.from_bytes(datagram[4:6])
    if datagram[6] != dpkt.ip.IP_PROTO_ICMP6 or end > len(datagram):
        return None
    src, dst, message = datagram[8:24], datagram[24:40], datagram[_IP6_LEN:end]
    if src == _NO_ADDRESS6 or len(message) < _ICMP6_LEN or _sum6(src, dst, message) != 0:
        return None
    routers = [ip.packed for ip in router_ips if ip.version == 6]
    if message[:2] == _ECHO6 and dst in routers:
        echo = bytes([dpkt.icmp6.ICMP6_ECHO_REPLY, 0, 0, 0]) + message[4:]
        return _datagram6(dst, src, echo, _REPLY_TTL)
    if message[:2] == _SOLICIT and datagram[7] == _ND_HOP_LIMIT:
        return _advert(src, message, node_mac, {ip.packed for ip in own_ips}, routers)
    return None


def _advert(
    asker: bytes, message: bytes, node_mac: bytes, own: Collection[bytes], routers: list[bytes]
) -> bytes | None:
    """Return the neighbour advertisement for a solicitation; the pod's own address gets none."""
    target = message[_ICMP6_LEN:_NS_LEN]
    if len(message) < _NS_LEN or target in own:
        return None
    flags = _NA_SOLICITED | (_NA_ROUTER if target in routers else _NA_OVERRIDE)
    advert = bytes([dpkt.icmp6.ND_NEIGHBOR_ADVERT, 0, 0, 0, flags, 0, 0, 0])
    advert += target + _OPTION_TARGET_MAC + node_mac
    return _datagram6(routers[0] if routers else target, asker, advert, _ND_HOP_LIMIT)


def _datagram6(src: bytes, dst: bytes, message: bytes, hop_limit: int) -> bytes:
    """Return an IPv6 datagram with an ICMPv6 message, its checksum filled in."""
    check = _sum6(src, dst, message).to_bytes(2)
    header = dpkt.ip6.IP6(
        plen=len(message), nxt=dpkt.ip.IP_PROTO_ICMP6, hlim=hop_limit, src=src, dst=dst
    )
    return bytes(header.pack_hdr()) + message[:2] + check + message[4:]


def _sum6(src: bytes, dst: bytes, message: bytes) -> int:
    """Return the ICMPv6 checksum over pseudo-header and message; 0 = a received one is right."""
    pseudo = src + dst + len(message).to_bytes(4) + bytes([0, 0, 0, dpkt.ip.IP_PROTO_ICMP6])
    return int(dpkt.in_cksum(pseudo + message))
