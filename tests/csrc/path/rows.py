"""The path as data: what a row of rows/*.yaml means, and one run of it through the real datapath.

A row is {name, world, steps} and ``spec``, the rows of datapath.md it proves (coverage.py); a step
has a frame (or ``raw`` hex), the port it enters at and what must come of it. ``out`` names what
changed: everything else must be byte for byte as sent, with scapy's checksums. ``partial: true``
sends the L4 checksum as the pseudo-header's sum alone, as a pod with checksum offload does;
``answered`` names the drop reason of a packet whose place an ICMP ``error`` to its sender took
(answers.py). A step ``{reload: world}`` changes the world, others look at the tables (state.py).
``match`` is the policy's match type (datapath.md 8.4), ``rule_id`` the policy row's place from 1.
Addresses: curl 10.244.0.108 (2825), local 10.244.0.109 (2827), nginx 10.244.2.171 behind node2
192.168.56.106, legacy pods 10.244.7.0/24 behind 192.168.56.107.
At the end of every row: packets in = packets out + drops + punts.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff, purge_connections, purge_services
from fwd.control.compile import compile_world
from fwd.control.world import World
from fwd.datapath.binding import Datapath, Outcome
from fwd.datapath.packet import CT_NONE, Packet
from fwd.model.enums import CT_TEXT, OBS_TEXT, Drop, Verdict
from fwd.model.rows import MetricRow
from tests.csrc.path.answers import check_answer
from tests.csrc.path.build import build, changed, partial_checksum, vxlan
from tests.csrc.path.state import check_state, is_state

HERE = Path(__file__).parent
DEFAULTS = YAML(typ="safe", pure=True).load((HERE / "rows" / "defaults.yaml").read_text())
RECEIVED, TO_STACK, SENT, PUNTED = 101, 102, 103, 100
DROPS = {int(reason) for reason in Drop}


def complete(step: dict[str, Any]) -> dict[str, Any]:
    """The frame of a step with the defaults of its port under it."""
    return {**DEFAULTS.get(step["port"], {}), **step.get("frame", {})}


def packet_of(step: dict[str, Any], ports: dict[str, int]) -> Packet:
    """What enters the datapath."""
    frame = bytes.fromhex(step["raw"]) if "raw" in step else build(complete(step))
    if step.get("partial"):
        frame, start, offset = partial_checksum(frame)
        return Packet(frame, ports[step["port"]], csum_start=start, csum_offset=offset)
    if step["port"] != "overlay":
        to_netdev, gso_size = step.get("hook") == "to-netdev", step.get("gso_size", 0)
        return Packet(frame, ports[step["port"]], to_netdev=to_netdev, gso_size=gso_size)
    if "vni" in step:
        frame = vxlan(step["vni"], frame)
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
    drop = Drop[expect["drop"]] if "drop" in expect else 0
    verdict = "DROP" if drop else expect["verdict"]
    reason = Drop[expect["answered"]] if "answered" in expect else drop
    assert (outcome.verdict, outcome.drop) == (Verdict[verdict], reason)
    assert [OBS_TEXT[point] for point in outcome.trace] == expect["trace"]
    ct = None if outcome.ct == CT_NONE else CT_TEXT[outcome.ct]
    assert ct == expect.get("ct")
    for name in ("src_identity", "dst_identity", "vni", "match", "rule_id", "dir"):
        if name in expect:
            assert getattr(outcome, name) == expect[name], name
    if "remote" in expect:
        assert str(outcome.remote) == expect["remote"]
    if "to" in expect:
        assert outcome.port == ports[expect["to"]]
    if "answered" in expect:
        check_answer(complete(step), expect, outcome)
    elif outcome.verdict != Verdict.DROP:
        assert outcome.frame.hex() == expected_frame(step, outcome).hex()


def balance(metrics: list[MetricRow]) -> dict[str, int]:
    """The two sides of: packets in = packets out + drops by reason + punts."""
    count = {row.reason: 0 for row in metrics}
    for row in metrics:
        count[row.reason] += row.packets
    out = sum(count.get(reason, 0) for reason in (SENT, TO_STACK, PUNTED))
    dropped = sum(packets for reason, packets in count.items() if reason in DROPS)
    return {"in": count.get(RECEIVED, 0), "out": out + dropped}


def load(name: str) -> dict[str, Any]:
    """The rows of one file by name; a second row of the same name would hide the first."""
    rows = YAML(typ="safe", pure=True).load((HERE / "rows" / f"{name}.yaml").read_text())["rows"]
    named = {row["name"]: row for row in rows}
    assert len(named) == len(rows), "row names are unique"
    return named


def world_of(name: str) -> World:
    """The tables of one of worlds/*.yaml."""
    return compile_world(load_node_file(HERE / "worlds" / f"{name}.yaml"))


def reload(dp: Datapath, old: World, new: World) -> World:
    """Go over to another world as the daemon does; returns it."""
    report = apply(dp, diff(old, new))
    purge_connections(dp, report.gone_addrs)
    if report.services_shrank:
        purge_services(dp)
    return new


def run(row: dict[str, Any]) -> None:
    """All steps of a row in a fresh world, then the sum of the counters."""
    world = world_of(row["world"])
    ports = dict(world.ports)
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        at = 1000.0
        for step in row["steps"]:
            at = step.get("at", at)
            if "reload" in step:
                world = reload(dp, world, world_of(step["reload"]))
                continue
            if is_state(step):
                check_state(dp, step, int(at))
                continue
            outcome = dp.run(int(at * 1e9), [packet_of(step, ports)])[0]
            check(step, outcome, ports)
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == sum("port" in step for step in row["steps"])
