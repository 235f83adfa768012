"""The path as data: every row of rows.yaml through the real datapath.

A row is {name, world, steps}; a step has a frame (or ``raw`` hex), the port it enters at and what
must come of it. ``out`` names what changed: everything else must be byte for byte as sent, with
scapy's checksums. At the end of every row: packets in = packets out + drops + punts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.datapath.binding import Datapath, Outcome
from fwd.datapath.packet import CT_NONE, Packet
from fwd.model.enums import CT_TEXT, OBS_TEXT, Drop, Verdict
from fwd.model.rows import MetricRow
from tests.csrc.path.build import build, changed, vxlan

HERE = Path(__file__).parent
DATA = YAML(typ="safe").load((HERE / "rows.yaml").read_text())
ROWS = {row["name"]: row for row in DATA["rows"]}
DEFAULTS = DATA["defaults"]
RECEIVED, TO_STACK, SENT, PUNTED = 101, 102, 103, 100
DROPS = {int(reason) for reason in Drop}


def complete(step: dict[str, Any]) -> dict[str, Any]:
    """The frame of a step with the defaults of its port under it."""
    return {**DEFAULTS.get(step["port"], {}), **step.get("frame", {})}


def packet_of(step: dict[str, Any], ports: dict[str, int]) -> Packet:
    """What enters the datapath."""
    frame = bytes.fromhex(step["raw"]) if "raw" in step else build(complete(step))
    if step["port"] != "overlay":
        return Packet(frame, ports[step["port"]], to_netdev=step.get("hook") == "to-netdev")
    if "vni" in step:
        frame = vxlan(step["vni"], frame)
    from ipaddress import ip_address  # noqa: PLC0415

    return Packet(
        frame,
        ports["overlay"],
        outer_src=ip_address(step.get("outer_src", "192.168.56.106")),
        outer_dst=ip_address("192.168.56.105"),
    )


def expected_frame(step: dict[str, Any], outcome: Outcome) -> bytes:
    """The frame as it must leave: as sent but for what ``out`` names."""
    if "raw" in step:
        return bytes.fromhex(step["raw"])
    frame = changed(complete(step), step["expect"].get("out", {}))
    if outcome.remote is not None:
        return vxlan(step["expect"]["vni"], frame)
    return frame


def check(step: dict[str, Any], outcome: Outcome, ports: dict[str, int]) -> None:
    """Compare everything the row states."""
    expect = step["expect"]
    drop = expect.get("drop", 0)
    verdict = "DROP" if drop else expect["verdict"]
    assert (outcome.verdict, outcome.drop) == (Verdict[verdict], drop)
    assert [OBS_TEXT[point] for point in outcome.trace] == expect["trace"]
    ct = None if outcome.ct == CT_NONE else CT_TEXT[outcome.ct]
    assert ct == expect.get("ct")
    for name in ("src_identity", "dst_identity", "vni"):
        if name in expect:
            assert getattr(outcome, name) == expect[name], name
    if "remote" in expect:
        assert str(outcome.remote) == expect["remote"]
    if "to" in expect:
        assert outcome.port == ports[expect["to"]]
    if outcome.verdict != Verdict.DROP:
        assert outcome.frame.hex() == expected_frame(step, outcome).hex()


def balance(metrics: list[MetricRow]) -> dict[str, int]:
    """The two sides of: packets in = packets out + drops by reason + punts."""
    count = {row.reason: 0 for row in metrics}
    for row in metrics:
        count[row.reason] += row.packets
    out = sum(count.get(reason, 0) for reason in (SENT, TO_STACK, PUNTED))
    dropped = sum(packets for reason, packets in count.items() if reason in DROPS)
    return {"in": count.get(RECEIVED, 0), "out": out + dropped}


@pytest.mark.parametrize("name", ROWS)
def test_path_row(name: str) -> None:
    """One row, in a world of its own."""
    row = ROWS[name]
    world = compile_world(load_node_file(HERE / "worlds" / f"{row['world']}.yaml"))
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        at = 1000.0
        for step in row["steps"]:
            at = step.get("at", at)
            outcome = dp.run(int(at * 1e9), [packet_of(step, dict(world.ports))])[0]
            check(step, outcome, dict(world.ports))
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == len(row["steps"])


def test_path_rows_have_unique_names() -> None:
    """A second row of the same name would hide the first."""
    assert len(ROWS) == len(DATA["rows"])
