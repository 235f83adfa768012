"""Packets by the ten thousand: frames made by cutting new ports into one that scapy built once."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from fwd.control.apply import apply, diff
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import Packet
from fwd.model.enums import Verdict
from tests.csrc.path.build import vxlan
from tests.csrc.path.rows import DEFAULTS, balance, build, world_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwd.model.enums import Drop

__all__ = ["NS", "Node", "frame", "node", "ported", "tunnelled"]

NS = 1_000_000_000
L4 = 34
"""Where the ports of an IPv4 frame without options stand."""
NGINX_IDENTITY = 25002


def frame(port: str, **spec: Any) -> bytes:
    """A frame as rows build it, by its port and what differs from the defaults."""
    return build({**DEFAULTS[port], **spec})


def ported(template: bytes, sport: int | None, dport: int | None = None) -> bytes:
    """The frame with other ports; nobody on the way of a pod's packet looks at its checksum."""
    raw = bytearray(template)
    for at, port in ((L4, sport), (L4 + 2, dport)):
        if port is not None:
            raw[at : at + 2] = port.to_bytes(2, "big")
    return bytes(raw)


def tunnelled(inner: bytes) -> bytes:
    """What node2 sends for one of nginx's frames."""
    return vxlan(NGINX_IDENTITY, inner)


class Node:
    """A datapath with a clock, and what was sent through it."""

    def __init__(self, dp: Datapath, ports: dict[str, int]) -> None:
        """Start the clock at a second that is nobody's edge."""
        self.dp = dp
        self.ports = ports
        self.now_s = 1000.0
        self.sent = 0

    def run(self, port: str, frames: Sequence[bytes], *, to_netdev: bool = False) -> list[Any]:
        """Send frames into one port; the outcomes, in order."""
        overlay = port == "overlay"
        outer = IPv4Address("192.168.56.106") if overlay else None
        packets = [
            Packet(
                tunnelled(one) if overlay else one,
                self.ports[port],
                to_netdev=to_netdev,
                outer_src=outer,
                outer_dst=IPv4Address("192.168.56.105") if overlay else None,
            )
            for one in frames
        ]
        self.sent += len(packets)
        return self.dp.run(int(self.now_s * NS), packets)

    def verdicts(self, port: str, frames: Sequence[bytes], **how: Any) -> Counter[tuple[str, int]]:
        """Send frames; how many had each verdict and drop reason."""
        outcomes = self.run(port, frames, **how)
        return Counter((Verdict(one.verdict).name, one.drop) for one in outcomes)

    def drops(self, reason: Drop) -> int:
        """How many packets the counters say were dropped for ``reason``."""
        return sum(row.packets for row in self.dp.metrics() if row.reason == reason)

    def sweep(self) -> int:
        """Do what control's sweep does, all at once; returns the connections that went."""
        deleted = 0
        for tcp in (True, False):
            count, cursor = self.dp.ct_sweep(tcp=tcp, now_s=int(self.now_s), cursor=0, budget=1000)
            deleted += count
            while cursor:
                count, cursor = self.dp.ct_sweep(
                    tcp=tcp, now_s=int(self.now_s), cursor=cursor, budget=1000
                )
                deleted += count
        cursor = -1
        while cursor:
            _, cursor = self.dp.nat_sweep(cursor=max(cursor, 0), budget=1000)
        return deleted


@contextmanager
def node(world_name: str, **capacities: int) -> Iterator[Node]:
    """One of worlds/*.yaml in tables of these sizes; at the end, the sum of the counters."""
    world = world_of(world_name)
    with Datapath.create(replace(world.params, **capacities)) as dp:
        apply(dp, diff(None, world))
        one = Node(dp, dict(world.ports))
        yield one
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == one.sent
