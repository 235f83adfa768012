"""Packets of the seed's connection, and how a flow begins: shared by the conntrack tests."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st

from tests.csrc.tables.ct_driver import CtDriver
from tests.models.ct import Key, Packet, State

__all__ = ["A6", "N6", "PACKETS", "ROUTER", "A", "N", "begin", "mapped", "tcp"]

NEW = 0
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
TCP, UDP, ICMP, SCTP = 6, 17, 1, 132


def mapped(text: str) -> bytes:
    """Return an address as 16 bytes, IPv4 mapped (D5)."""
    addr = ip_address(text)
    return addr.packed if addr.version == 6 else bytes(10) + b"\xff\xff" + addr.packed


A, N, ROUTER = mapped("10.244.0.108"), mapped("10.244.2.171"), mapped("10.244.0.150")
A6, N6 = mapped("fd00::108"), mapped("fd00::171")


def tcp(flags: int, *, back: bool = False, sport: int = 43512) -> Packet:
    """Return a packet of the seed's connection, ``back`` = from nginx."""
    if back:
        return Packet(N, A, TCP, 80, sport, tcp_flags=flags)
    return Packet(A, N, TCP, sport, 80, tcp_flags=flags)


def begin(ct: CtDriver, packet: Packet, hook: str = "egress", now: int = 100) -> Key:
    """Look a new flow up and create its entry; return the key."""
    status, key, monitor, _ = ct.lookup(packet, hook, "bidir", now)
    assert (status, monitor) == (NEW, 128)
    assert ct.create(key, hook, packet.len, now, State(src_identity=48172)) == 0
    return key


PACKETS = st.builds(
    Packet,
    saddr=st.sampled_from([A, N, ROUTER]),
    daddr=st.sampled_from([A, N]),
    proto=st.sampled_from([TCP, TCP, UDP, ICMP, SCTP]),
    sport=st.sampled_from([80, 43512]),
    dport=st.sampled_from([80, 43512]),
    tcp_flags=st.sampled_from([SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN]),
    icmp_type=st.sampled_from([0, 3, 8, 11, 13]),
    icmp_id=st.sampled_from([1, 2]),
    later_fragment=st.sampled_from([False, False, False, True]),
    len=st.integers(14, 65549),
)
