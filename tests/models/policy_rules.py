"""Slow twin of the policy compiler and the lookup behind it: rules asked one by one.

No map entries, no prefixes: a deny that matches wins, else an allow that matches, else the
direction's default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwd.model.policy import Rule

__all__ = ["DENIED", "DENY", "decide", "matches"]

DENIED, DENY = 133, 181
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}


def matches(rule: Rule, identity: int, proto: int, port: int) -> bool:
    """Tell whether the rule's own words fit this packet."""
    if rule.identity not in ("any", identity):
        return False
    if rule.proto != "any" and NUMBERS[rule.proto] != proto:
        return False
    if rule.port == "any":
        return True
    ends = [int(end) for end in rule.port.split("-")]
    return ends[0] <= port <= ends[-1]


def decide(
    rules: Iterable[Rule], *, enforced: bool, ingress: bool, identity: int, proto: int, port: int
) -> tuple[int, list[Rule]]:
    """Return the drop reason (0 = allowed) and the written rules that may be named for it."""
    hits = [rule for rule in rules if matches(rule, identity, proto, port)]
    denies = [rule for rule in hits if rule.action == "deny"]
    if denies:
        return DENY, denies
    allows = [rule for rule in hits if rule.action == "allow"]
    if allows or not enforced or (ingress and identity == 1):
        return 0, allows
    return DENIED, []
