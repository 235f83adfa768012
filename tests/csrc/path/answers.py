"""ICMP errors that took a packet's place, judged by scapy.

``error`` of a row: ``src`` (who tells), ``kind`` ([type, code]), ``mtu`` where there is one,
``quote`` (bytes of the packet it must carry, from its IP header on), ``smac``/``dmac``. It goes to
the packet's source; the quoted bytes are the packet as its sender wrote it. ``reset`` is a TCP
reset of the packet's destination instead: ``seq``, ``ack``, ``flags``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.csrc.path.build import build

if TYPE_CHECKING:
    from fwd.datapath.packet import Outcome

__all__ = ["check_answer", "ones_sum", "pseudo6", "sums_are_right"]

ETH, VXLAN = 14, 8


def check_answer(sent: dict[str, Any], expect: dict[str, Any], outcome: Outcome) -> None:
    """Compare every field of the error or the reset, its checksums and what it quotes."""
    if "reset" in expect:
        assert outcome.frame == reset(sent, expect["reset"])
        return
    error = expect["error"]
    raw = outcome.frame[VXLAN if outcome.remote is not None else 0 :]
    frame = Ether(raw)
    assert (frame.src, frame.dst) == (error["smac"], error["dmac"])
    six = ":" in sent["src"]
    ip = frame[IPv6 if six else IP]
    assert (ip.src, ip.dst) == (error["src"], sent["src"])
    assert (ip.hlim if six else ip.ttl) == 64
    head = ETH + (40 if six else 20)
    assert (ip.nh if six else ip.proto) == (58 if six else 1)
    message = raw[head:]
    assert list(message[:2]) == error["kind"]
    assert int.from_bytes(message[4:8]) == error.get("mtu", 0)
    packet = build(sent)[ETH:]
    assert message[8:] == packet[: error["quote"]]
    assert len(message) == 8 + error["quote"]
    assert rebuilt(frame, six=six) == raw


def reset(sent: dict[str, Any], fields: dict[str, Any]) -> bytes:
    """What the packet's destination would have answered; window, identification, options: none."""
    six = ":" in sent["src"]
    ends = {"src": sent["dst"], "dst": sent["src"]}
    ip = IPv6(**ends) if six else IP(**ends, id=0, ttl=64)
    ports = {"sport": sent["tcp"]["dport"], "dport": sent["tcp"]["sport"], "window": 0}
    return bytes(Ether(src=sent["dmac"], dst=sent["smac"]) / ip / TCP(**ports, **fields))


def rebuilt(frame: Ether, *, six: bool) -> bytes:
    """The frame with lengths and checksums that scapy worked out."""
    frame = frame.copy()
    ip = frame[IPv6 if six else IP]
    if six:
        del ip.plen
        del ip.payload.cksum
    else:
        del ip.len, ip.chksum
        del frame[ICMP].chksum
    inner = ip.payload.payload
    ip.payload.remove_payload()
    return bytes(frame / bytes(inner))


def sums_are_right(frame: bytes) -> bool:
    """Do the IP header and the ICMP message of a frame add up to all ones?"""
    six = frame[12:14] == b"\x86\xdd"
    if not six:
        return ones_sum(frame[14:34]) == ones_sum(frame[34:]) == 0xFFFF
    message = frame[54:]
    return ones_sum(frame[22:54] + pseudo6(message) + message) == 0xFFFF


def pseudo6(message: bytes) -> bytes:
    """The pseudo-header of an ICMPv6 message behind its addresses."""
    return len(message).to_bytes(4) + bytes([0, 0, 0, 58])


def ones_sum(data: bytes) -> int:
    """The one's-complement sum of a checksummed message is all ones."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
