"""What became of a packet, as the object that replay and trace answer with.

Pure: an outcome and the world it was decided in. The contract is in fwd/control/replay.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwd.control.policy import explain
from fwd.datapath.packet import CT_NONE, PORT_NETDEV
from fwd.datapath.slowpath import answer
from fwd.model.enums import CT_TEXT, OBS_TEXT, Stage, Verdict
from fwd.observe.words import drop_name

if TYPE_CHECKING:
    from fwd.control.world import World
    from fwd.datapath.packet import Outcome, Packet, Step
    from fwd.model.policy import Direction
    from fwd.model.rows import Address

__all__ = ["packet_answer"]

_POLICY_STAGES: dict[int, Direction] = {
    Stage.POLICY_EGRESS: "egress",
    Stage.POLICY_INGRESS: "ingress",
}
VXLAN_HLEN = 8
_CT_STAGES = (Stage.CT_EGRESS, Stage.CT_INGRESS)


def packet_answer(world: World, packet: Packet, outcome: Outcome) -> dict[str, Any]:
    """Return verdict, drop, conntrack state, identities, rule, points passed and what went out.

    Args:
        world: whose tables decided.
        packet: as it came in.
        outcome: of it, with its steps.
    """
    return {
        "verdict": outcome.verdict.name,
        "drop": {"code": outcome.drop, "name": drop_name(outcome.drop)} if outcome.drop else None,
        "ct": None if outcome.ct == CT_NONE else CT_TEXT[outcome.ct],
        "src_identity": outcome.src_identity,
        "dst_identity": outcome.dst_identity,
        "rule": _rule(world, outcome),
        "trace": [OBS_TEXT[point] for point in outcome.trace],
        "out": _out(world, packet, outcome),
    }


def _rule(world: World, outcome: Outcome) -> dict[str, object] | None:
    spoke = _last(outcome.steps, tuple(_POLICY_STAGES))
    looked_up = _last(outcome.steps, _CT_STAGES)
    return explain(
        world.rules,
        outcome.drop,
        outcome.rule_id,
        world.names.get(outcome.policy_endpoint),
        _POLICY_STAGES[spoke.stage] if spoke else None,
        identity=spoke.c if spoke else None,
        proto=spoke.len if spoke else None,
        port=looked_up.b & 0xFFFF if looked_up else None,
    )


def _out(world: World, packet: Packet, outcome: Outcome) -> list[dict[str, Any]]:
    match outcome.verdict:
        case Verdict.TX_ENDPOINT:
            return [{"port": world.names[outcome.port], "frame": outcome.frame.hex()}]
        case Verdict.TO_STACK:
            return [{"port": "cilium_host", "frame": outcome.frame.hex()}]
        case Verdict.TX_UNDERLAY:
            return [_underlay(outcome)]
        case Verdict.PUNT:
            return _slow_path(world, packet, outcome)
    return []


def _underlay(outcome: Outcome) -> dict[str, Any]:
    if outcome.port == PORT_NETDEV:
        return {"port": "netdev", "frame": outcome.frame.hex()}
    return {
        "port": "overlay",
        "remote": str(outcome.remote),
        "vni": outcome.vni,
        "udp_payload": outcome.frame.hex(),
        "frame": outcome.frame[VXLAN_HLEN:].hex(),
    }


def _slow_path(world: World, packet: Packet, outcome: Outcome) -> list[dict[str, Any]]:
    """Return the frame the slow path writes back to the port the packet came from."""
    own: list[Address] = [row.addr for row in world.lxc if row.lxc_id == packet.port]
    routers = [row.addr for row in world.lxc if row.router]
    for row in world.endpoints:
        if row.lxc_id != packet.port:
            continue
        frame = answer(outcome.frame, row.mac, row.node_mac, own, routers)
        if frame is not None:
            return [{"port": world.names[packet.port], "frame": frame.hex()}]
    return []


def _last(steps: tuple[Step, ...], stages: tuple[int, ...]) -> Step | None:
    return next((step for step in reversed(steps) if step.stage in stages), None)
