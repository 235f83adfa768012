"""Events as monitor lines and as objects: Cilium's literal shapes (reference 8.5)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from fwd.datapath.packet import Event
from fwd.model.enums import Obs
from fwd.observe.events import event_record, lost_record, monitor_line
from tests.observe.samples import SYN, event
from tests.observe.test_words import RULE, RULE_TEXT

CONNECTION = "10.244.0.108:43512 -> 10.244.2.171:80 tcp SYN"
LINES = [
    (
        "to-endpoint",
        event(),
        ("-> endpoint 2826 flow 0x8a1c3f02 , identity 48172->27914 state new "
        f"ifindex lxc65015af813d1 orig-ip 10.244.0.108: {CONNECTION}"),
    ),
    (
        "to-overlay",
        event(subtype=Obs.TO_OVERLAY, ifindex=0, orig_ip=ip_address("::"),
              data=bytes.fromhex("0800000000bc2c00") + SYN),
        ("-> overlay flow 0x8a1c3f02 , identity 48172->27914 state new "
        f"orig-ip 0.0.0.0: {CONNECTION}"),
    ),
    (
        "from-endpoint",
        event(subtype=Obs.FROM_ENDPOINT, source=2825, ct=255, ifindex=0, dst_identity=0),
        ("<- endpoint 2825 flow 0x8a1c3f02 , identity 48172->unknown state unknown "
        f"orig-ip 10.244.0.108: {CONNECTION}"),
    ),
    (
        "drop",
        event(type=1, subtype=155),
        ("xx drop (CT: Map insertion failed) flow 0x8a1c3f02 to endpoint 2826, ifindex 29, , "
        f"identity 48172->27914: {CONNECTION}"),
    ),
    (
        "drop-nameless",
        event(type=1, subtype=138, dst_id=0, ifindex=0, data=b"", src_identity=2),
        "xx drop (reason 138) flow 0x8a1c3f02 to endpoint 0, , identity world->27914: [unknown]",
    ),
    (
        "verdict",
        event(type=5),
        ("Policy verdict log: flow 0x8a1c3f02 local EP ID 2826, remote ID 48172, proto 6, "
        f"ingress, action allow, auth: disabled, match L3-L4, {CONNECTION}"),
    ),
    (
        "verdict-deny-egress",
        event(type=5, dir=2, dst_identity=2, verdict=-133, match=0),
        ("Policy verdict log: flow 0x8a1c3f02 local EP ID 2826, remote ID world, proto 6, "
        f"egress, action deny, auth: disabled, match none, {CONNECTION}"),
    ),
    (
        "step",
        event(type=2),
        ".. step flow 0x8a1c3f02  0  stage_parse              ethertype 0x0000, frame 0 bytes",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("one", "line"), [row[1:] for row in LINES],
                         ids=[row[0] for row in LINES])  # fmt: skip
def test_monitor_line(one: Event, line: str):
    """Each event prints in its shape; devices print by name where one is known."""
    ifname = "lxc65015af813d1" if one.type == 4 and one.ifindex else None
    assert monitor_line(event_record(one, ifname=ifname)) == line


@pytest.mark.parametrize(("kind", "subtype"), [(1, 133), (5, 0)])
def test_monitor_line_appends_the_rule(kind: int, subtype: int):
    """Verdicts and policy drops end with the rule that decided, and its line in the file."""
    line = monitor_line(event_record(event(type=kind, subtype=subtype), rule=RULE))
    assert line.endswith(f"{CONNECTION}, rule: {RULE_TEXT}")


def test_monitor_line_of_lost_events():
    """A gap in the stream says so itself."""
    assert monitor_line(lost_record(12, "ring")) == "CPU 00: Lost 12 events (ring)"


def test_monitor_line_of_a_newer_type():
    """A record of a type this reader does not know still prints."""
    assert monitor_line({"type": "agent", "x": 1}) == "{'type': 'agent', 'x': 1}"


def test_trace_record_has_ciliums_fields():
    """Readers of `cilium monitor -j` find what they look for."""
    record = event_record(event(), ifname="lxc65015af813d1")
    assert record == {
        "cpu": "CPU 00:",
        "type": "trace",
        "mark": "0x8a1c3f02",
        "time_ns": 1,
        "source": 2826,
        "bytes": 54,
        "srcLabel": 48172,
        "dstLabel": 27914,
        "direction": "ingress",
        "state": "new",
        "observationPoint": "to-endpoint",
        "traceSummary": "-> endpoint 2826",
        "dstID": 2826,
        "origIP": "10.244.0.108",
        "ifindex": "lxc65015af813d1",
        "connection": CONNECTION,
        "summary": {
            "l2": {"src": "96:86:44:a6:37:01", "dst": "d2:ad:65:4d:d0:01"},
            "l3": {"src": "10.244.0.108", "dst": "10.244.2.171"},
            "l4": {"src": "43512", "dst": "80"},
            "tcp": "SYN",
        },
    }


def test_drop_record_has_ciliums_fields_and_advice():
    """A drop names its reason, number, and what to do about it."""
    record = event_record(event(type=1, subtype=133), rule=RULE)
    assert (record["type"], record["reason"]) == ("drop", "Policy denied")
    assert (record["Line"], record["File"], record["ExtError"], record["Ifindex"]) == (0, 0, 0, 29)
    assert record["drop"]["code"] == 133
    assert record["drop"]["name"] == "POLICY_DENIED"
    assert "rule" in record["drop"]["advice"]
    assert record["rule"] == RULE


def test_verdict_record_says_audit():
    """What policy would have denied: the reason stands beside the action."""
    audited = event_record(event(type=5, subtype=1, dir=2, verdict=-133))
    assert (audited["action"], audited["drop"]["code"]) == ("audit", 133)


def test_verdict_record_names_the_other_side():
    """The remote identity is the source of what comes in and the destination of what goes out."""
    assert event_record(event(type=5))["remoteID"] == 48172
    denied = event_record(event(type=5, dir=2, verdict=-181))
    assert (denied["remoteID"], denied["action"], denied["drop"]["code"]) == (27914, "deny", 181)


def test_step_record_carries_the_walk():
    """A step's record holds its row, names and the rendered line."""
    record = event_record(event(type=2))
    assert (record["row"], record["stage"], record["drop"]) == (0, "stage_parse", None)
    assert record["walk"].startswith(" 0  stage_parse")
    assert "connection" not in record
