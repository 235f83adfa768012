"""csrc/path/mss.c: SYNs through the tunnel carry an MSS that fits it, and right checksums."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from fwd.datapath.binding import Datapath, Outcome
from fwd.datapath.packet import PORT_OVERLAY, Packet
from fwd.model.enums import Stage
from tests.csrc.path.build import vxlan
from tests.csrc.path.test_dp import CURL, datapath

MAC = {"src": "96:86:44:a6:37:01", "dst": "d2:ad:65:4d:d0:01"}
V4, V6 = {"src": "10.244.0.108", "dst": "10.244.2.171"}, {"src": "fd00::108", "dst": "fd00:2::171"}
ODD = [("NOP", None), ("MSS", 9000), ("NOP", None), ("NOP", None), ("NOP", None)]


@pytest.fixture
def dp() -> Iterator[Datapath]:
    """The base world with a tunnel of 1450 bytes and clamping on."""
    with datapath() as one:
        one.set_settings(replace(one.settings, tunnel_mtu=1450, mss_clamp=True))
        yield one


def syn(flags: str = "S", options: list | None = None, *, v6: bool = False) -> bytes:
    """A segment of curl to nginx."""
    ip = IPv6(**V6) if v6 else IP(**V4)
    chosen = [("MSS", 1460), ("SAckOK", b"")] if options is None else options
    return bytes(Ether(**MAC) / ip / TCP(sport=9, dport=80, flags=flags, options=chosen))


def run(dp: Datapath, frame: bytes, **extra: int) -> Outcome:
    """The segment out of curl's port."""
    return dp.run(10**9, [Packet(frame, CURL, **extra)])[0]


def mss_of(frame: bytes) -> int:
    """The MSS option, after checking that scapy would have made the same checksum."""
    parsed = Ether(frame)
    again = Ether(frame)
    del again[TCP].chksum
    assert Ether(bytes(again))[TCP].chksum == parsed[TCP].chksum
    return dict(parsed[TCP].options)["MSS"]


@pytest.mark.parametrize(
    ("frame", "mss"),
    [
        (syn(), 1410),
        (syn("SA"), 1410),
        (syn(v6=True), 1390),
        (syn(options=ODD), 1410),
        (syn(options=[("MSS", 1410)]), 1410),
        (syn(options=[("MSS", 536)]), 536),
        (syn("A"), 1460),
    ],
    ids=["v4", "syn-ack", "v6", "odd-offset", "fits", "small", "not-a-syn"],
)
def test_mss_option_through_the_tunnel(dp: Datapath, frame: bytes, mss: int) -> None:
    """Lowered when larger, in SYNs only; everything else as it was."""
    outcome = run(dp, frame)
    assert mss_of(outcome.frame[8:]) == mss
    told = [step for step in outcome.steps if step.stage == Stage.MSS]
    assert bool(told) == (outcome.frame[8:] != frame)


def test_mss_of_a_partial_checksum_is_finished_right(dp: Datapath) -> None:
    """The sum is made after the option was changed."""
    start, field = 34, 16
    frame = bytearray(syn())
    pseudo = bytes.fromhex("0af4006c0af402ab0006") + (len(frame) - start).to_bytes(2)
    total = sum(int.from_bytes(pseudo[i : i + 2]) for i in range(0, len(pseudo), 2))
    total = (total & 0xFFFF) + (total >> 16)
    frame[start + field : start + field + 2] = total.to_bytes(2)
    outcome = run(dp, bytes(frame), csum_start=start, csum_offset=field)
    assert mss_of(outcome.frame[8:]) == 1410


def test_mss_is_lowered_on_arrival_too(dp: Datapath) -> None:
    """One clamping node is enough for both directions."""
    packet = Ether(**MAC) / IP(src=V4["dst"], dst=V4["src"]) / TCP(flags="S", options=ODD)
    payload = vxlan(25002, bytes(packet))
    source = IPv4Address("192.168.56.106")
    outcome = dp.run(10**9, [Packet(payload, PORT_OVERLAY, outer_src=source)])[0]
    assert mss_of(outcome.frame) == 1410


def test_mss_is_left_alone_when_off_or_local(dp: Datapath) -> None:
    """Off by default; a pod on the same node has no tunnel between."""
    local = Ether(**MAC) / IP(src=V4["src"], dst="10.244.0.109") / TCP(flags="S", options=ODD)
    assert mss_of(run(dp, bytes(local)).frame) == 9000
    dp.set_settings(replace(dp.settings, mss_clamp=False))
    assert mss_of(run(dp, syn()).frame[8:]) == 1460


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=st.binary(max_size=40).filter(lambda b: len(b) % 4 == 0))
def test_mss_survives_any_options(dp: Datapath, options: bytes) -> None:
    """Whatever the option bytes, only two of them may change, and never the length."""
    header = TCP(sport=9, dport=80, flags="S", dataofs=5 + len(options) // 4)
    frame = bytes(Ether(**MAC) / IP(**V4) / header / options)
    after = run(dp, frame).frame[8:]
    assert len(after) == len(frame)
    changed = [at for at in range(54, len(frame)) if frame[at] != after[at]]
    assert len(changed) <= 2


def test_an_option_that_ends_the_frame_is_all_that_is_touched(dp: Datapath) -> None:
    """Nothing behind the value belongs to the header, or to the frame: the sum is over it alone."""
    frame = syn(options=[("MSS", 9000)])
    assert len(frame) == 14 + 20 + 24
    (out,) = dp.run(0, [Packet(frame, CURL)])
    packet = Ether(out.frame[8:])
    assert dict(packet[TCP].options)["MSS"] == 1410
    fresh = packet.copy()
    del fresh[TCP].chksum
    assert Ether(bytes(fresh))[TCP].chksum == packet[TCP].chksum
