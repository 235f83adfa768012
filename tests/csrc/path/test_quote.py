"""Rows of ICMP errors about translated flows, csrc/path/quote.c, and quotes of any shape."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fwd.control.apply import apply, diff
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import PORT_OVERLAY, Packet
from fwd.model.enums import Verdict
from tests.csrc.path.answers import ones_sum, pseudo6, sums_are_right
from tests.csrc.path.build import build, vxlan
from tests.csrc.path.rows import DEFAULTS, load, run, world_of

ROWS = load("quote")
CURL = 2825
REQUESTS = {
    "tcp4": {"src": "10.244.0.108", "dst": "10.96.0.10", "tcp": {"sport": 9, "dport": 80}},
    "udp4": {"src": "10.244.0.108", "dst": "10.96.0.10", "udp": {"sport": 9, "dport": 53}},
    "udp6": {"src": "fd00::108", "dst": "fd00:96::10", "udp": {"sport": 9, "dport": 53}},
}
ERRORS4 = {"src": "10.244.2.171", "dst": "10.244.0.108"}
ERRORS6 = {"src": "fd00:2::171", "dst": "fd00::108"}


@pytest.mark.parametrize("name", ROWS)
def test_quote_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


@given(
    request=st.sampled_from(sorted(REQUESTS)),
    keep=st.integers(0, 80),
    kind=st.integers(0, 2),
    at=st.integers(0, 79),
    junk=st.binary(max_size=8),
)
def test_whatever_an_error_quotes_the_packet_stays_whole(
    *, request: str, keep: int, kind: int, at: int, junk: bytes
) -> None:
    """A cut or mangled quote keeps its length, and every checksum stays right."""
    sent = {**DEFAULTS["curl"], **REQUESTS[request], "payload": "x" * 40}
    world = world_of("icmp")
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        (there,) = dp.run(10**9, [Packet(build(sent), CURL)])
        assert there.verdict == Verdict.TX_UNDERLAY
        quoted = bytearray(there.frame[8 + 14 :])
        quoted[at : at + len(junk)] = junk
        frame = error_about(bytes(quoted[:keep]), kind, six=request == "udp6")
        packet = Packet(vxlan(25002, frame), PORT_OVERLAY, outer_src=IPv4Address("192.168.56.106"))
        (back,) = dp.run(10**9, [packet])
    assert back.verdict == Verdict.TX_ENDPOINT
    assert len(back.frame) == len(frame)
    assert sums_are_right(back.frame)


def error_about(quoted: bytes, kind: int, *, six: bool) -> bytes:
    """An ICMP error of the backend around any bytes, its checksum right."""
    header = IPv6(**ERRORS6, nh=58) if six else IP(**ERRORS4, proto=1)
    message = bytes([1 + kind if six else (3, 11, 12)[kind], 0, 0, 0, 0, 0, 0, 0]) + quoted
    pseudo = bytes(header)[8:40] + pseudo6(message) if six else b""
    check = 0xFFFF - ones_sum(pseudo + message)
    defaults = DEFAULTS["overlay"]
    ether = Ether(src=defaults["smac"], dst=defaults["dmac"])
    return bytes(ether / header / Raw(message[:2] + check.to_bytes(2) + message[4:]))
