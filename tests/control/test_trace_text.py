"""The last line of a trace, verdict by verdict, and stages by hook."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from fwd.control.trace_text import stage_records, verdict_result, verdict_text
from fwd.datapath.packet import (
    CT_NONE,
    PORT_HOST,
    PORT_NETDEV,
    PORT_NONE,
    PORT_OVERLAY,
    Outcome,
    Packet,
    Step,
)
from fwd.model.enums import Drop, Stage, Verdict
from fwd.model.policy import Rule

NODE2 = ip_address("192.168.56.106")
BASE = Outcome(
    verdict=Verdict.TO_STACK, drop=0, ct=CT_NONE, match=0, dir=2, trace=(), port=PORT_HOST,
    src_identity=25001, dst_identity=2, rule_id=0, policy_endpoint=0, hash=0, vni=0, remote=None,
    frame=b"", steps=(),
)  # fmt: skip
RULE = Rule("rule", 3, "/etc/fwd/node.yaml", 46, "a", "egress", "allow", 25002, "tcp", "80")
RECORD = {"rule": None, "ct": None, "out": [], "stages": []}
DENIED = [{"function": "stage_policy(EGRESS)", "drop": 181}, {"function": "later", "drop": 0}]


def text(outcome, **record):
    """The line for an outcome."""
    return verdict_text(RECORD | record, outcome, {2825: "default/curl"}, {NODE2: "node2"})


def overlay(remote=NODE2):
    """Sent to a node."""
    return replace(BASE, verdict=Verdict.TX_UNDERLAY, port=PORT_OVERLAY, remote=remote, vni=25001)


@pytest.mark.parametrize(
    ("outcome", "record", "line"),
    [
        (BASE, {}, "forwarded to the host's stack"),
        (BASE, {"ct": "reply"}, "forwarded to the host's stack — reply, policy is not asked"),
        (overlay(), {"rule": RULE.as_json()},
         "forwarded to node2 192.168.56.106, VNI 25001 — allowed by policy[3] node.yaml:46"),
        (overlay(ip_address("192.0.2.1")), {},
         "forwarded to a node without a peers row 192.0.2.1, VNI 25001"),
        (replace(BASE, verdict=Verdict.TX_UNDERLAY, port=PORT_NETDEV), {},
         "forwarded out of netdev"),
        (replace(BASE, verdict=Verdict.TX_ENDPOINT, port=2825, dst_identity=25001), {},
         "forwarded to default/curl, identity 25001"),
        (replace(BASE, verdict=Verdict.PUNT), {"out": [{}]}, "forwarded: the slow path answers it"),
        (replace(BASE, verdict=Verdict.PUNT), {},
         "forwarded: the slow path gets it and has no answer"),
    ],
)  # fmt: skip
def test_where_it_went(outcome, record, line):
    """The receiver, and the rule that let it pass."""
    assert verdict_result(outcome) == "forwarded"
    assert text(outcome, **record) == line


def test_why_it_did_not_go():
    """A policy's drop names the rule, any other says what to do; an answered one is rejected."""
    dead = replace(BASE, verdict=Verdict.DROP, port=PORT_NONE, drop=Drop.POLICY_DENY)
    rule = replace(RULE, action="deny").as_json()
    assert text(dead, rule=rule, stages=DENIED) == (
        "dropped: 181 Policy denied by denylist — denied by policy[3] node.yaml:46"
    )
    late = replace(dead, drop=Drop.TTL_EXCEEDED)
    assert text(late, rule=rule).startswith("dropped: 196 TTL exceeded — the packet has made")
    told = replace(late, verdict=Verdict.TX_ENDPOINT)
    assert verdict_result(told) == "rejected"
    assert text(told).startswith("rejected: 196 TTL exceeded")


def test_a_manifests_rule_has_its_policys_name():
    """Kind, name, list and item, and where it stands."""
    rule = replace(RULE, policy="default/web", manifest="NetworkPolicy").as_json()
    assert text(overlay(), rule=rule).endswith(
        "— allowed by NetworkPolicy default/web egress[3] node.yaml:46"
    )


def test_a_default_deny_says_which_rule_was_nearest():
    """In the words of monitor and replay."""
    rule = {"kind": "default-deny", "endpoint": "a", "direction": "egress", "because": [],
            "nearest": RULE.as_json()}  # fmt: skip
    dead = replace(BASE, verdict=Verdict.DROP, drop=Drop.POLICY_DENIED)
    line = text(dead, rule=rule, stages=DENIED)
    assert "default deny: a egress, no rule selects it; nearest: allow a egress" in line


def test_stages_stand_under_their_hooks():
    """From the wire into a pod: three hooks, the parse belongs to the one it is called from."""
    order = [Stage.FROM_NETDEV, Stage.DECAP, Stage.PARSE, Stage.PEER, Stage.L3, Stage.CT_INGRESS,
             Stage.POLICY_INGRESS]  # fmt: skip
    steps = [Step(int(stage), 0, 1, 6, 1, 4, 0, 2825, ip_address("10.0.0.1")) for stage in order]
    records = stage_records(steps, Packet(b"", PORT_OVERLAY), {1: RULE})
    assert [row["hook"] for row in records] == (
        ["from-netdev"] + 4 * ["from-overlay"] + 2 * ["to-container"]
    )
    assert "allow a egress to identity 25002" in records[-1]["walk"]
    assert stage_records(steps[2:3], Packet(b"", PORT_HOST), {})[0]["hook"] == "from-host"
    leaves = Packet(b"", PORT_NETDEV, to_netdev=True)
    assert stage_records(steps[2:3], leaves, {})[0]["hook"] == "to-netdev"
    unknown = replace(steps[0], stage=250)
    assert stage_records([unknown], Packet(b"", 1), {})[0]["row"] is None
