"""The slow path (D11): answers to the frames the datapath punts. Pure: opens no descriptor.

Two protocols: ARP, answered for any target but the pod's own, and ICMP echo to a router address.
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
        router_ips: addresses that answer an echo request.

    Returns:
        The whole frame, or None when silence is the answer.

    Source:
        Cilium's ``arp_respond`` (bpf/lib/arp.h); the echo is what the host's stack would do.
    """
    ethertype = frame[12:_ETH_LEN]
    if ethertype == b"\x08\x06":
        return _answer_arp(frame, node_mac, {ip.packed for ip in own_ips})
    if ethertype == b"\x08\x00":
        datagram = _answer_echo(frame[_ETH_LEN:], {ip.packed for ip in router_ips})
        if datagram is not None:
            return endpoint_mac + node_mac + ethertype + datagram
    return None


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
