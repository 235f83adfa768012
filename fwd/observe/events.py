"""Event records of the ring as JSON objects and as monitor lines (reference 8.5, era [C]).

Pure. The daemon makes objects (``event_record``), which travel as ndjson; whoever prints them
(``fwd monitor``) makes lines of them (``monitor_line``), so both forms always say the same.
Objects have the fields of ``cilium monitor -j`` and fwd's own beside them: ``time_ns``,
``connection``, ``direction``, ``drop``, ``rule``, ``walk``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwd.model.enums import (
    CT_TEXT,
    DROP_ADVICE,
    DROP_TEXT,
    OBS_SUMMARY,
    OBS_TEXT,
    STAGE_INFO,
    Obs,
)
from fwd.model.identity import identity_name
from fwd.observe.dissect import dissect
from fwd.observe.walk import step_line
from fwd.observe.words import DIRECTION_TEXT, MATCH_TEXT, drop_name, rule_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwd.datapath.packet import Event

__all__ = ["EVENT_TYPES", "event_record", "lost_record", "monitor_line"]

EVENT_TYPES: dict[int, str] = {1: "drop", 2: "step", 4: "trace", 5: "policy-verdict"}
"""enum fwd_event_type to the ``type`` of a record."""

_DROP = 1
_VXLAN_LEN = 8
_TUNNEL_POINTS = frozenset({Obs.TO_OVERLAY, Obs.FROM_OVERLAY, Obs.TO_NETWORK, Obs.FROM_NETWORK})
_CPU = "CPU 00:"  # one loop, one writer: the field is there for Cilium's readers


def event_record(
    event: Event, *, rule: Mapping[str, Any] | None = None, ifname: str | None = None
) -> dict[str, Any]:
    """Turn one event into its JSON object.

    Args:
        event: as read from the ring.
        rule: the rule that decided, or the explanation of a default deny; None = unknown.
        ifname: name of the device ``event.ifindex``; None = print the number.
    """
    kind = EVENT_TYPES.get(event.type, f"type-{event.type}")
    record: dict[str, Any] = {
        "cpu": _CPU,
        "type": kind,
        "mark": f"{event.hash:#x}",
        "time_ns": event.time_ns,
        "source": event.source,
    }
    if kind == "step":
        return record | _step_fields(event, rule)
    dissection = dissect(_frame(event))
    record |= {
        "bytes": event.len_orig,
        "srcLabel": event.src_identity,
        "dstLabel": event.dst_identity,
        "direction": DIRECTION_TEXT.get(event.dir, "unknown"),
    }
    record |= _FIELDS.get(kind, _no_fields)(event, ifname)
    if rule is not None:
        record["rule"] = dict(rule)
    return record | {"connection": dissection.connection, "summary": dissection.summary}


def lost_record(count: int, where: str) -> dict[str, Any]:
    """Say how many events a listener has missed.

    Args:
        count: since the last such record.
        where: "ring" when the datapath overwrote them, "queue" when the listener was too slow.
    """
    return {"cpu": _CPU, "type": "lost", "count": count, "where": where}


def _frame(event: Event) -> bytes:
    """The captured frame without the VXLAN header that stands before it around the tunnel."""
    data = event.data
    outside = event.type != _DROP and event.subtype in _TUNNEL_POINTS
    vxlan = data[:4] == b"\x08\0\0\0" and data[7:8] == b"\0"
    return data[_VXLAN_LEN:] if vxlan and (outside or event.type == _DROP) else data


def _no_fields(_event: Event, _ifname: str | None) -> dict[str, Any]:
    return {}


def _step_fields(event: Event, rule: Mapping[str, Any] | None) -> dict[str, Any]:
    step = event.step
    info = STAGE_INFO.get(step.stage)
    return {
        "row": info.row if info else None,
        "stage": info.function if info else str(step.stage),
        "seed": info.seed if info else None,
        "drop": _drop_object(step.drop) if step.drop else None,
        "walk": step_line(step, rule_text(rule) if rule else None),
    } | ({"rule": dict(rule)} if rule else {})


def _trace_fields(event: Event, ifname: str | None) -> dict[str, Any]:
    summary = OBS_SUMMARY.get(event.subtype, f"point {event.subtype}")
    if event.subtype == Obs.TO_ENDPOINT:
        summary = f"{summary} {event.dst_id}"
    elif event.subtype == Obs.FROM_ENDPOINT:
        summary = f"{summary} {event.source}"
    fields: dict[str, Any] = {
        "state": CT_TEXT.get(event.ct, "unknown"),
        "observationPoint": OBS_TEXT.get(event.subtype, str(event.subtype)),
        "traceSummary": summary,
        "dstID": event.dst_id,
        "origIP": str(event.orig_ip) if int(event.orig_ip) else "0.0.0.0",  # noqa: S104
    }
    if event.ifindex:
        fields["ifindex"] = ifname or str(event.ifindex)
    return fields


def _drop_fields(event: Event, _ifname: str | None) -> dict[str, Any]:
    return {
        "reason": DROP_TEXT.get(event.subtype, f"reason {event.subtype}"),
        "drop": _drop_object(event.subtype),
        "dstID": event.dst_id,
        "Line": 0,
        "File": 0,
        "ExtError": 0,
        "Ifindex": event.ifindex,
    }


def _action(event: Event) -> str:
    """What policy did; ``audit`` = it would have denied. The subtype says so (csrc/path/dp.c)."""
    if event.verdict >= 0:
        return "allow"
    return "audit" if event.subtype else "deny"


def _verdict_fields(event: Event, _ifname: str | None) -> dict[str, Any]:
    ingress = DIRECTION_TEXT.get(event.dir) == "ingress"
    return {
        "localID": event.source,
        "remoteID": event.src_identity if ingress else event.dst_identity,
        "dstPort": event.dst_port,
        "proto": event.proto,
        "action": _action(event),
        "match": MATCH_TEXT.get(event.match, str(event.match)),
        "drop": _drop_object(-event.verdict) if event.verdict < 0 else None,
    }


_FIELDS = {"trace": _trace_fields, "drop": _drop_fields, "policy-verdict": _verdict_fields}


def _drop_object(code: int) -> dict[str, Any]:
    return {"code": code, "name": drop_name(code), "advice": DROP_ADVICE.get(code, "")}


# ---- lines ----


def monitor_line(record: Mapping[str, Any]) -> str:
    """Render one record of the monitor stream as Cilium's monitor prints it."""
    render = _LINES.get(str(record.get("type")))
    return render(record) if render else str(dict(record))


def _identities(record: Mapping[str, Any]) -> str:
    return f"identity {identity_name(record['srcLabel'])}->{identity_name(record['dstLabel'])}"


def _rule_suffix(record: Mapping[str, Any]) -> str:
    rule = record.get("rule")
    return f", rule: {rule_text(rule)}" if rule else ""


def _trace_line(record: Mapping[str, Any]) -> str:
    device = f" ifindex {record['ifindex']}" if "ifindex" in record else ""
    return (
        f"{record['traceSummary']} flow {record['mark']} , {_identities(record)} "
        f"state {record['state']}{device} orig-ip {record['origIP']}: {record['connection']}"
    )


def _drop_line(record: Mapping[str, Any]) -> str:
    device = f" ifindex {record['Ifindex']}," if record["Ifindex"] else ""
    return (
        f"xx drop ({record['reason']}) flow {record['mark']} to endpoint {record['dstID']},"
        f"{device} , {_identities(record)}: {record['connection']}{_rule_suffix(record)}"
    )


def _verdict_line(record: Mapping[str, Any]) -> str:
    return (
        f"Policy verdict log: flow {record['mark']} local EP ID {record['localID']}, "
        f"remote ID {identity_name(record['remoteID'])}, proto {record['proto']}, "
        f"{record['direction']}, action {record['action']}, auth: disabled, "
        f"match {record['match']}, {record['connection']}{_rule_suffix(record)}"
    )


def _step_line(record: Mapping[str, Any]) -> str:
    return f".. step flow {record['mark']} {record['walk']}"


def _lost_line(record: Mapping[str, Any]) -> str:
    return f"{record['cpu']} Lost {record['count']} events ({record['where']})"


_LINES = {
    "trace": _trace_line,
    "drop": _drop_line,
    "policy-verdict": _verdict_line,
    "step": _step_line,
    "lost": _lost_line,
}
