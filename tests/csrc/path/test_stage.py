"""Rows of the stages both sides share, csrc/path/stage.c, and of conntrack under them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from fwd.control.apply import apply, diff
from fwd.datapath.binding import Datapath, Packet
from fwd.model.enums import Drop, Verdict
from tests.csrc.path.build import build
from tests.csrc.path.rows import complete, load, run, world_of

ROWS = load("stage") | load("conntrack")
FRAGMENT = 9
"""Reason of the metric, datapath.md 8.2."""


@pytest.mark.parametrize("name", ROWS)
def test_stage_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


def test_each_fragment_is_counted() -> None:
    """Metric 9 a fragment, first and later, with and without its ports; whole packets are none."""
    world = world_of("base")
    first = {
        "frag": {"id": 7, "more": True},
        "udp": {"sport": 1, "dport": 2},
        "payload": "12345678",
    }
    later = {"frag": {"id": 7, "offset": 2}, "proto": 17, "payload": "12345678"}
    lost = {"frag": {"id": 8, "offset": 2}, "proto": 17, "payload": "12345678"}
    frames = [build(complete({"port": "curl", "frame": spec}))
              for spec in (first, later, lost, {"udp": {"sport": 1, "dport": 2}})]  # fmt: skip
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        dp.run(10**9, [Packet(frame, 2825) for frame in frames])
        counted = [(m.dir, m.packets, m.bytes) for m in dp.metrics() if m.reason == FRAGMENT]
    assert counted == [(2, 3, sum(map(len, frames[:3])))]


def test_frag_needed_is_policed_when_switched_off() -> None:
    """Without the feature ICMP 3/4 needs a rule as anything else."""
    world = world_of("enforced")
    world = replace(world, settings=replace(world.settings, icmp_frag_needed=False))
    spec = {"dst": "10.244.0.109", "icmp": {"type": 3, "code": 4}, "payload": "quoted header"}
    packet = Packet(build(complete({"port": "curl", "frame": spec})), 2825)
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        out = dp.run(10**9, [packet])[0]
    assert (out.verdict, out.drop) == (Verdict.DROP, Drop.POLICY_DENIED)


def test_ipv6_datagrams_are_told_apart_by_all_32_bits() -> None:
    """Identifications that end alike do not give each other's ports away."""
    macs = Ether(src="96:86:44:a6:37:01", dst="d2:ad:65:4d:d0:01")
    ends = macs / IPv6(src="fd00::108", dst="fd00:96::10")
    first, other = (
        bytes(ends / IPv6ExtHdrFragment(id=number, m=1, nh=17) / UDP(sport=5, dport=port, len=32)
              / Raw(b"12345678"))
        for number, port in ((0x10007, 53), (0x20007, 9999))
    )  # fmt: skip
    later = bytes(ends / IPv6ExtHdrFragment(id=0x10007, offset=2, nh=17) / Raw(b"12345678"))
    world = world_of("services")
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        outs = dp.run(10**9, [Packet(frame, 2825) for frame in (first, other, later)])
    assert [out.verdict for out in outs] == [Verdict.TX_UNDERLAY, Verdict.DROP, Verdict.TX_UNDERLAY]
    assert Ether(outs[2].frame[8:])[IPv6].dst == "fd00:2::171"
