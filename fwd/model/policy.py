"""Policy rules as values: what a map entry's ``rule_id`` stands for.

Pure. The compiler in fwd/control/policy.py makes map entries of rules and numbers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["PROTO_NUMBERS", "Action", "Direction", "PortRange", "Proto", "Rule", "RuleKind"]

RuleKind = Literal["rule", "selects", "default-allow", "localhost"]
Direction = Literal["ingress", "egress"]
Action = Literal["allow", "deny"]
Proto = Literal["any", "tcp", "udp", "sctp", "icmp", "icmpv6"]

PROTO_NUMBERS: dict[str, int] = {
    "any": 0,
    "tcp": 6,
    "udp": 17,
    "sctp": 132,
    "icmp": 1,
    "icmpv6": 58,
}
"""IP protocol numbers of the names a rule may use; 0 = any."""


class PortRange(NamedTuple):
    """Destination ports ``first`` to ``last``, both included; ICMP: the type."""

    first: int
    last: int

    def __str__(self) -> str:
        """Return ``80`` or ``8080-8095``."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, written or implied, behind policy map entries."""

    kind: RuleKind
    """``rule``: a policy row, or an item of a manifest's policy; ``selects``: a manifest's policy
    that puts the endpoint under default deny; ``default-allow``: the direction is not enforced;
    ``localhost``: the node itself may always reach its endpoints."""
    index: int
    """Row in its section of the file, or item in its list of the policy; from 0."""
    file: str
    line: int
    endpoint: str
    direction: Direction
    action: Action
    identity: int | Literal["any"]
    proto: Proto
    port: str
    """``any``, a port, or a range; ICMP: the type."""
    policy: str = ""
    """Of a manifest's rule: the policy's full name."""
    manifest: str = ""
    """Likewise: its kind."""

    def as_json(self) -> dict[str, object]:
        """Return the rule as ``rule`` stands in replay answers and events.

        ``policy`` and ``manifest`` stand in rules of manifests only.
        """
        named = {"policy": self.policy, "manifest": self.manifest} if self.policy else {}
        return {
            "kind": self.kind,
            "index": self.index,
            "file": self.file,
            "line": self.line,
            "endpoint": self.endpoint,
            "direction": self.direction,
            "action": self.action,
            "identity": self.identity,
            "proto": self.proto,
            "port": self.port,
            **named,
        }
