"""Rows of the stages both sides share, csrc/path/stage.c."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fwd.control.apply import apply, diff
from fwd.datapath.binding import Datapath, Packet
from fwd.model.enums import Drop, Verdict
from tests.csrc.path.build import build
from tests.csrc.path.rows import complete, load, run, world_of

ROWS = load("stage")
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
