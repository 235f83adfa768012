"""What a trace says: its stages by hook, and the one line with verdict and rule.

Pure. The lines of stages are those of fwd/observe/walk.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, PORT_OVERLAY
from fwd.model.enums import DROP_ADVICE, DROP_TEXT, STAGE_INFO, Stage, Verdict
from fwd.model.identity import identity_name
from fwd.observe.walk import policy_rule_id, step_line
from fwd.observe.words import rule_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwd.datapath.packet import Outcome, Packet, Step
    from fwd.model.policy import Rule
    from fwd.model.rows import Address

__all__ = ["stage_records", "verdict_result", "verdict_text"]

_ENTRY: Final = {PORT_HOST: "from-host", PORT_NETDEV: "from-netdev", PORT_OVERLAY: "from-overlay"}
_HOOK_OF_ROW: Final = {7: "to-overlay", 8: "to-netdev", 9: "from-netdev", 11: "to-container"}
_ANYWHERE: Final = {Stage.SNAT, Stage.REV_SNAT}
"""Stages that the hook they stand in the table for is not the only one to run."""


def stage_records(
    steps: Iterable[Step], packet: Packet, rules: Mapping[int, Rule]
) -> list[dict[str, Any]]:
    """Return ``hook``, ``row``, ``function``, ``drop`` and ``walk`` of every step.

    Args:
        steps: of one packet.
        packet: as it came in.
        rules: for the text behind policy entries.
    """
    records = []
    hook = "to-netdev" if packet.to_netdev else _ENTRY.get(packet.port, "from-container")
    for step in steps:
        info = STAGE_INFO.get(step.stage)
        row = info.row if info else None
        if step.stage == Stage.DECAP:
            hook = "from-overlay"
        elif row is not None and step.stage not in _ANYWHERE:
            hook = _HOOK_OF_ROW.get(row, hook)
        rule = rules.get(policy_rule_id(step))
        records.append(
            {
                "hook": hook,
                "row": row,
                "function": info.function if info else f"stage {step.stage}",
                "drop": step.drop,
                "walk": step_line(step, rule_text(rule.as_json()) if rule else None),
            }
        )
    return records


def verdict_result(outcome: Outcome) -> str:
    """Return ``forwarded``, ``dropped``, or ``rejected``: dropped, and the sender is told so."""
    if outcome.verdict == Verdict.DROP:
        return "dropped"
    return "rejected" if outcome.drop else "forwarded"


def verdict_text(
    record: Mapping[str, Any],
    outcome: Outcome,
    names: Mapping[int, str],
    peers: Mapping[Address, str],
) -> str:
    """Return what became of the packet and by which rule, in one line.

    Args:
        record: the packet's answer.
        outcome: of the packet.
        names: lxc_id to endpoint name.
        peers: underlay address to node name.
    """
    result = verdict_result(outcome)
    why = _why(record, outcome, allowed=result == "forwarded")
    if result == "forwarded":
        head = _where(record, outcome, names, peers)
    else:
        head = f"{result}: {outcome.drop} {DROP_TEXT.get(outcome.drop, 'unknown reason')}"
    return f"{head} — {why}" if why else head


def _where(
    record: Mapping[str, Any],
    outcome: Outcome,
    names: Mapping[int, str],
    peers: Mapping[Address, str],
) -> str:
    match outcome.verdict:
        case Verdict.TX_ENDPOINT:
            name = names.get(outcome.port, f"endpoint {outcome.port}")
            return f"forwarded to {name}, identity {identity_name(outcome.dst_identity)}"
        case Verdict.TX_UNDERLAY if outcome.remote is not None and outcome.port == PORT_OVERLAY:
            name = peers.get(outcome.remote, "a node without a peers row")
            return f"forwarded to {name} {outcome.remote}, VNI {outcome.vni}"
        case Verdict.TX_UNDERLAY:
            return "forwarded out of netdev"
        case Verdict.PUNT:
            told = "answers it" if record["out"] else "gets it and has no answer"
            return f"forwarded: the slow path {told}"
    return "forwarded to the host's stack"


def _why(record: Mapping[str, Any], outcome: Outcome, *, allowed: bool) -> str:
    """The rule behind the verdict, else what to do about a drop."""
    rule = record["rule"]
    if rule is not None and (allowed or _spoke_policy(record)):
        return _rule(rule, allowed=allowed)
    if not allowed:
        return DROP_ADVICE.get(outcome.drop, "")
    if record["ct"] in {"reply", "related"}:
        return f"{record['ct']}, policy is not asked"
    return ""


def _spoke_policy(record: Mapping[str, Any]) -> bool:
    """Whether it was a policy stage that dropped."""
    return any(row["drop"] and "stage_policy" in row["function"] for row in record["stages"])


def _rule(rule: Mapping[str, Any], *, allowed: bool) -> str:
    verb = "allowed" if allowed else "denied"
    if rule.get("kind") != "rule":
        return rule_text(rule)
    where = f" {Path(str(rule['file'])).name}:{rule['line']}" if rule.get("file") else ""
    name = f"policy[{rule.get('index')}]"
    if rule.get("policy"):
        name = f"{rule['manifest']} {rule['policy']} {rule['direction']}[{rule['index']}]"
    return f"{verb} by {name}{where}"
