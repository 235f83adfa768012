"""One node of a replay: a datapath in this process, filled from a node file.

Gives each packet's outcome as the object of the replay contract. No sockets, no devices, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff, purge_connections
from fwd.control.compile import compile_world
from fwd.control.dumps import dump_rows
from fwd.control.policy import explain
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import CT_NONE, PORT_NETDEV, PORT_OVERLAY, Packet
from fwd.datapath.slowpath import answer
from fwd.model.enums import CT_TEXT, OBS_TEXT, Stage, Verdict
from fwd.observe.words import drop_name

if TYPE_CHECKING:
    from pathlib import Path

    from fwd.control.world import World
    from fwd.datapath.packet import Outcome, Step
    from fwd.model.policy import Direction
    from fwd.model.rows import Address

__all__ = ["PacketResult", "ReplayNode"]

VXLAN_HLEN = 8
SWEEP_BUDGET = 65536
_POLICY_STAGES: dict[int, Direction] = {
    Stage.POLICY_EGRESS: "egress",
    Stage.POLICY_INGRESS: "ingress",
}
_CT_STAGES = (Stage.CT_EGRESS, Stage.CT_INGRESS)


@dataclass(frozen=True, slots=True)
class PacketResult:
    """What one node made of one packet."""

    answer: dict[str, Any]
    """The object of the contract, without ``n``."""
    outcome: Outcome


class ReplayNode:
    """A datapath that starts clean and knows its node file."""

    def __init__(self, path: Path, *, seed: int) -> None:
        """Load, compile and write the tables.

        Raises:
            ConfigError: the node file is wrong.
            DatapathError: the tables cannot be made.
        """
        self.node = load_node_file(path)
        self.world = compile_world(self.node)
        self.dp = Datapath.create(replace(self.world.params, hash_seed=seed))
        apply(self.dp, diff(None, self.world))

    def close(self) -> None:
        """Free the tables."""
        self.dp.close()

    def reload(self, path: Path) -> tuple[str, ...]:
        """Change to another node file; connections survive. Returns what cannot change now.

        Raises:
            ConfigError: the file is wrong; the old state stays.
            DatapathError: the tables cannot hold it; the old state stays.
        """
        node = load_node_file(path)
        world = compile_world(node)
        report = apply(self.dp, diff(self.world, world))
        purge_connections(self.dp, report.gone_addrs)
        self.node, self.world = node, world
        return (*node.warnings, *report.notes)

    def sweep(self, now_s: int) -> None:
        """Delete the expired conntrack entries."""
        for tcp in (True, False):
            cursor = 0
            while True:
                _, cursor = self.dp.ct_sweep(
                    tcp=tcp, now_s=now_s, cursor=cursor, budget=SWEEP_BUDGET
                )
                if not cursor:
                    break

    def dump(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of one table."""
        return dump_rows(self.dp, self.world, table)

    def run(self, now_ns: int, packet: Packet) -> PacketResult:
        """Decide on one packet."""
        (outcome,) = self.dp.run(now_ns, [packet])
        result = {
            "verdict": outcome.verdict.name,
            "drop": {"code": outcome.drop, "name": drop_name(outcome.drop)}
            if outcome.drop
            else None,
            "ct": None if outcome.ct == CT_NONE else CT_TEXT[outcome.ct],
            "src_identity": outcome.src_identity,
            "dst_identity": outcome.dst_identity,
            "rule": self._rule(outcome),
            "trace": [OBS_TEXT[point] for point in outcome.trace],
            "out": self._out(packet, outcome),
        }
        return PacketResult(result, outcome)

    def _rule(self, outcome: Outcome) -> dict[str, object] | None:
        spoke = _last(outcome.steps, tuple(_POLICY_STAGES))
        looked_up = _last(outcome.steps, _CT_STAGES)
        return explain(
            self.world.rules,
            outcome.drop,
            outcome.rule_id,
            self.world.names.get(outcome.policy_endpoint),
            _POLICY_STAGES[spoke.stage] if spoke else None,
            identity=spoke.c if spoke else None,
            proto=spoke.len if spoke else None,
            port=looked_up.b & 0xFFFF if looked_up else None,
        )

    def _out(self, packet: Packet, outcome: Outcome) -> list[dict[str, Any]]:
        match outcome.verdict:
            case Verdict.TX_ENDPOINT:
                return [{"port": self.world.names[outcome.port], "frame": outcome.frame.hex()}]
            case Verdict.TO_STACK:
                return [{"port": "cilium_host", "frame": outcome.frame.hex()}]
            case Verdict.TX_UNDERLAY:
                return [self._underlay(outcome)]
            case Verdict.PUNT:
                return self._slow_path(packet, outcome)
        return []

    def _underlay(self, outcome: Outcome) -> dict[str, Any]:
        if outcome.port == PORT_NETDEV:
            return {"port": "netdev", "frame": outcome.frame.hex()}
        return {
            "port": "overlay",
            "remote": str(outcome.remote),
            "vni": outcome.vni,
            "udp_payload": outcome.frame.hex(),
            "frame": outcome.frame[VXLAN_HLEN:].hex(),
        }

    def _slow_path(self, packet: Packet, outcome: Outcome) -> list[dict[str, Any]]:
        """Return the frame the slow path writes back to the port the packet came from."""
        own: list[Address] = [row.addr for row in self.world.lxc if row.lxc_id == packet.port]
        routers = [row.addr for row in self.world.lxc if row.router]
        for row in self.world.endpoints:
            if row.lxc_id != packet.port:
                continue
            frame = answer(outcome.frame, row.mac, row.node_mac, own, routers)
            if frame is not None:
                return [{"port": self.world.names[packet.port], "frame": frame.hex()}]
        return []

    def from_underlay(self, sender: World, outcome: Outcome) -> Packet | None:
        """Return what arrives here when ``sender`` sent ``outcome``, None = it goes elsewhere."""
        if outcome.verdict != Verdict.TX_UNDERLAY:
            return None
        if outcome.port == PORT_NETDEV:
            return Packet(outcome.frame, PORT_NETDEV)
        if outcome.remote != self.world.ip:
            return None
        return Packet(outcome.frame, PORT_OVERLAY, outer_src=sender.ip, outer_dst=outcome.remote)


def _last(steps: tuple[Step, ...], stages: tuple[int, ...]) -> Step | None:
    return next((step for step in reversed(steps) if step.stage in stages), None)
