"""Words for numbers that tools print: policy match types, directions, metric reasons.

Pure. Drop reasons, observation points and conntrack states are generated (fwd/model/enums.py),
identities have their names in fwd/model/identity.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwd.model.enums import DROP_TEXT, Drop

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DIRECTION_TEXT",
    "MATCH_TEXT",
    "METRIC_TEXT",
    "drop_name",
    "reason_text",
    "rule_text",
]

MATCH_TEXT: dict[int, str] = {
    0: "none",
    1: "L3-Only",
    2: "L3-L4",
    3: "L4-Only",
    4: "all",
    5: "L3-Proto",
    6: "Proto-Only",
}

DIRECTION_TEXT: dict[int, str] = {0: "unknown", 1: "ingress", 2: "egress", 3: "service"}

METRIC_TEXT: dict[int, str] = {
    0: "Success",
    3: "Interface",
    9: "Fragmented packet",
    10: "Fragmented packet entry update failed",
    100: "Punted to the slow path",
    101: "Received",
    102: "Passed to the stack",
    103: "Sent",
    104: "Answered: TTL exceeded",
    105: "Answered: fragmentation needed",
    106: "Answered: service backend not found",
    107: "Answered: policy denied",
}
"""Metric reasons below 130: Cilium's texts, 100 and up are fwd's own (csrc/abi.h)."""


def drop_name(code: int) -> str:
    """Name a drop reason as in csrc/drop_reasons.def: ``POLICY_DENIED``."""
    try:
        return Drop(code).name
    except ValueError:
        return f"REASON_{code}"


def reason_text(reason: int) -> str:
    """Text of a metric reason, drop codes included."""
    return METRIC_TEXT.get(reason) or DROP_TEXT.get(reason) or f"reason {reason}"


def rule_text(rule: Mapping[str, Any]) -> str:
    """One line for the rule that decided, as ``Rule.as_json`` or ``explain`` give it."""
    kind = str(rule.get("kind", "rule"))
    if kind == "default-allow":
        return f"default allow: {rule.get('endpoint')} enforces no {rule.get('direction')} policy"
    if kind == "localhost":
        return f"localhost: the node reaches {rule.get('endpoint')} always"
    if kind == "default-deny":
        return _default_deny_text(rule)
    return _written_rule_text(rule)


def _written_rule_text(rule: Mapping[str, Any]) -> str:
    where = f"{rule['file']}:{rule['line']}" if rule.get("file") else ""
    if rule.get("policy"):
        section = f"{rule['direction']}{'Deny' if rule.get('action') == 'deny' else ''}"
        item = "" if rule.get("kind") == "selects" else f" {section}[{rule['index']}]"
        where = f"{rule['manifest']} {rule['policy']}{item}, {where}"
    where = f" ({where})" if where else ""
    peer = "from" if rule.get("direction") == "ingress" else "to"
    return (
        f"{rule.get('action')} {rule.get('endpoint')} {rule.get('direction')} {peer} identity "
        f"{rule.get('identity')} proto {rule.get('proto')} port {rule.get('port')}{where}"
    )


def _default_deny_text(rule: Mapping[str, Any]) -> str:
    selecting = rule.get("because") or []
    text = f"default deny: {rule.get('endpoint')} {rule.get('direction')}, "
    policies = [f"{one['manifest']} {one['policy']}" for one in selecting if one.get("policy")]
    if policies:
        text += f"selected by {', '.join(dict.fromkeys(policies))}, no rule allows it"
    else:
        text += f"none of {len(selecting)} rules allows it" if selecting else "no rule selects it"
    nearest = rule.get("nearest")
    return f"{text}; nearest: {_written_rule_text(nearest)}" if nearest else text
