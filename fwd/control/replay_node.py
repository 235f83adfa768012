"""One node of a replay: a datapath in this process, filled from a node file.

Gives each packet's outcome as the object of the replay contract. No sockets, no devices, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fwd.control.answer import packet_answer
from fwd.control.apply import apply, diff, purge_connections, purge_services
from fwd.control.compile import compile_world
from fwd.control.dumps import dump_rows
from fwd.control.node_source import read_node
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import PORT_NETDEV, PORT_OVERLAY, Packet
from fwd.model.enums import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from fwd.control.world import World
    from fwd.datapath.packet import Outcome

__all__ = ["PacketResult", "ReplayNode"]

SWEEP_BUDGET = 65536


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
        self.node = read_node(path)
        self.world = compile_world(self.node)
        self.dp = Datapath.create(replace(self.world.params, hash_seed=seed))
        apply(self.dp, diff(None, self.world))
        self.dp.ipcache_settle()

    def close(self) -> None:
        """Free the tables."""
        self.dp.close()

    def reload(self, path: Path) -> tuple[str, ...]:
        """Change to another node file; connections survive. Returns what cannot change now.

        Raises:
            ConfigError: the file is wrong; the old state stays.
            DatapathError: the tables cannot hold it; the old state stays.
        """
        node = read_node(path)
        world = compile_world(node)
        report = apply(self.dp, diff(self.world, world))
        self.dp.ipcache_settle()
        purge_connections(self.dp, report.gone_addrs)
        if report.services_shrank:
            purge_services(self.dp)
        self.node, self.world = node, world
        return (*node.warnings, *report.notes)

    def sweep(self, now_s: int) -> None:
        """Delete the expired conntrack entries, and the mappings of forgotten connections."""
        for tcp in (True, False):
            cursor = 0
            while True:
                _, cursor = self.dp.ct_sweep(
                    tcp=tcp, now_s=now_s, cursor=cursor, budget=SWEEP_BUDGET
                )
                if not cursor:
                    break
        cursor = 0
        while True:
            _, cursor = self.dp.nat_sweep(cursor=cursor, budget=SWEEP_BUDGET)
            if not cursor:
                break

    def dump(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of one table."""
        return dump_rows(self.dp, self.world, table)

    def run(self, now_ns: int, packet: Packet) -> PacketResult:
        """Decide on one packet."""
        (outcome,) = self.dp.run(now_ns, [packet])
        return PacketResult(packet_answer(self.world, packet, outcome), outcome)

    def from_underlay(self, sender: World, outcome: Outcome) -> Packet | None:
        """Return what arrives here when ``sender`` sent ``outcome``, None = it goes elsewhere."""
        if outcome.verdict != Verdict.TX_UNDERLAY:
            return None
        if outcome.port == PORT_NETDEV:
            return Packet(outcome.frame, PORT_NETDEV)
        if outcome.remote != self.world.ip:
            return None
        return Packet(outcome.frame, PORT_OVERLAY, outer_src=sender.ip, outer_dst=outcome.remote)
