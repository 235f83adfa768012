"""Policy: compiled entries against the rules themselves, and the rule behind a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fwd.config.schema import NodeFile
from fwd.control.compile import compile_world
from fwd.control.policy import DIRECTIONS, compile_policy, explain, port_prefixes
from fwd.datapath.binding import Datapath
from fwd.model.policy import PortRange, Rule
from fwd.model.rows import Params
from tests.control.worlds import node_file
from tests.models.policy_rules import DENIED, DENY, decide

SMALL = Params(ct_tcp=16, ct_any=16, ipcache=16, endpoints=16, lxc=16, policy=4096, peers=16,
               fragments=16, events=16)  # fmt: skip
IDENTITIES = [1, 2, 100, 200]
PORTS = st.one_of(st.integers(0, 20), st.integers(0, 65535), st.sampled_from([80, 443, 65535]))


def make_node(rules, *, ingress=True, egress=True):
    """A node file with endpoint `a` and the given policy rows."""
    endpoint = {"name": "a", "id": 10, "identity": 100, "ip": "10.0.0.10",
                "enforce": {"ingress": ingress, "egress": egress}}  # fmt: skip
    return NodeFile.model_validate(
        {
            "\0path": Path("w.yaml"),
            "node": {"name": "n", "ip": "192.0.2.1", "pod_cidr": "10.0.0.0/24"},
            "endpoints": [endpoint],
            "policy": [{"endpoint": "a"} | rule for rule in rules],
        }
    )


@st.composite
def rule_rows(draw):
    """One policy row, biased towards overlaps."""
    proto = draw(st.sampled_from(["any", "tcp", "tcp", "udp", "icmp"]))
    row = {
        "direction": draw(st.sampled_from(["ingress", "egress"])),
        "identity": draw(st.sampled_from(["any", 100, 200])),
        "proto": proto,
        "action": draw(st.sampled_from(["allow", "deny"])),
    }
    if proto in ("tcp", "udp"):
        ends = sorted((draw(PORTS), draw(PORTS)))
        row["port"] = draw(st.sampled_from(["any", f"{ends[0]}-{ends[1]}", str(ends[0])]))
    elif proto == "icmp":
        row["port"] = draw(st.sampled_from(["any", "0", "8", "0-8"]))
    return row


def edges(node):
    """Ports worth asking for: the ends of every range and their neighbours."""
    found = {0, 1, 80, 65535}
    for rule in node.policy:
        if rule.port:
            found |= {rule.port.first - 1, *rule.port, rule.port.last + 1}
    return sorted(found & set(range(65536)))


def allow(**words):
    """An allow row for egress, with the given words."""
    return {"direction": "egress", "action": "allow"} | words


@settings(max_examples=60)
@example([allow(proto="tcp"), allow(proto="tcp", port="80", action="deny")], False, True)
@example([allow(proto="tcp", port="80"), allow(proto="tcp", action="deny")], False, True)
@example([allow(identity=100), allow(action="deny")], False, False)
@example(
    [allow(identity=100, proto="tcp", port="80"), allow(proto="tcp", port="1-99", action="deny")],
    True,
    True,
)
@given(st.lists(rule_rows(), max_size=8), st.booleans(), st.booleans())
def test_policy_entries_decide_as_the_rules_do(rules, ingress, egress):
    """For every identity, protocol and edge of a range the tables say what the rules say."""
    node = make_node(rules, ingress=ingress, egress=egress)
    rows, numbered = compile_policy(node)
    written = [rule for rule in numbered.values() if rule.kind == "rule"]
    ports = edges(node)
    with Datapath.create(SMALL) as dp:
        for row in rows:
            dp.policy_upsert(row)
        for direction, number in DIRECTIONS.items():
            enforced = ingress if direction == "ingress" else egress
            mine = [rule for rule in written if rule.direction == direction]
            for identity in IDENTITIES:
                for proto in (6, 17, 1, 132):
                    for port in ports:
                        drop, may_be_named = decide(
                            mine,
                            enforced=enforced,
                            ingress=direction == "ingress",
                            identity=identity,
                            proto=proto,
                            port=port,
                        )
                        got, entry, _ = dp.policy_lookup(10, number, identity, proto, port)
                        assert got == drop, (direction, identity, proto, port)
                        rule = numbered[entry.rule_id] if entry else None
                        assert_named(rule, drop, may_be_named, enforced=enforced)


def assert_named(rule, drop, may_be_named, *, enforced):
    """The entry that decided names a rule that says so."""
    if drop == DENIED:
        assert rule is None
    elif drop == DENY or rule.kind == "rule":
        assert rule in may_be_named
    else:
        assert rule.kind == ("localhost" if enforced else "default-allow")


@given(PORTS, PORTS)
def test_port_prefixes_cut_a_range_into_few_aligned_blocks(one, other):
    """The blocks are aligned, disjoint, cover exactly the range, and are at most 30."""
    ports = PortRange(*sorted((one, other)))
    at = ports.first
    blocks = list(port_prefixes(ports))
    for first, bits in blocks:
        assert first == at
        assert first % (1 << (16 - bits)) == 0
        at += 1 << (16 - bits)
    assert at == ports.last + 1
    assert len(blocks) <= 30


def test_all_ports_are_one_block():
    """The whole range, which begins at a port that every power of two divides, is one entry."""
    assert list(port_prefixes(PortRange(0, 65535))) == [(0, 0)]


def test_rule_ids_are_the_rows_of_the_file():
    """Rule n is the n-th row; implied rules follow, with the line they come from."""
    node = node_file(
        policy="""\
        - {endpoint: a, direction: egress, action: allow, proto: tcp, port: 80}
        - {endpoint: a, direction: egress, action: deny, identity: 5}
        """
    )
    _, rules = compile_policy(node)
    assert [(number, rule.kind, rule.line) for number, rule in rules.items()] == [
        (1, "rule", 14),
        (2, "rule", 15),
        (3, "default-allow", 12),
        (4, "default-allow", 12),
    ]
    assert {rule.file for rule in rules.values()} == {"world.yaml"}
    assert compile_world(node).rules == rules


def test_one_deny_over_many_allows_leaves_only_the_deny():
    """Allows that can never hold make no entries."""
    rules = [allow(proto="tcp", port=str(port)) for port in range(80, 90)]
    rows, _ = compile_policy(make_node([*rules, allow(action="deny")], ingress=True))
    assert [(row.deny, row.prefix_len) for row in rows if row.dir == DIRECTIONS["egress"]] == [
        (True, 0)
    ]


RULES = {
    1: Rule("rule", 0, "w.yaml", 3, "a", "egress", "allow", 200, "tcp", "80"),
    2: Rule("rule", 1, "w.yaml", 4, "a", "egress", "allow", 300, "udp", "53-54"),
    3: Rule("rule", 2, "w.yaml", 5, "a", "ingress", "deny", "any", "any", "any"),
    4: Rule("rule", 3, "w.yaml", 6, "b", "egress", "allow", "any", "any", "any"),
}


def test_explain_names_the_rule_that_decided():
    """With an entry the answer is its rule, allow or deny."""
    assert explain(RULES, 0, 1, "a", "egress") == RULES[1].as_json()
    assert explain(RULES, DENY, 3, "a", "ingress") == RULES[3].as_json()


def test_explain_is_silent_when_no_policy_spoke():
    """Without an entry only a default deny has a reason in policy."""
    assert explain(RULES, 0, 0, None, None) is None
    assert explain(RULES, 132, 0, "a", "egress") is None
    assert explain(RULES, DENIED, 0, None, "egress") is None


def test_default_deny_lists_the_rules_that_select_the_endpoint():
    """Only rules of this endpoint and direction are the reason."""
    told = explain(RULES, DENIED, 0, "a", "egress")
    assert told["kind"] == "default-deny"
    assert told["because"] == [RULES[1].as_json(), RULES[2].as_json()]
    assert told["nearest"] is None


@pytest.mark.parametrize(
    ("packet", "nearest"),
    [
        ({"identity": 200, "proto": 6, "port": 443}, 1),
        ({"identity": 300, "proto": 6, "port": 80}, 1),
        ({"identity": 300, "proto": 17, "port": 55}, 2),
        ({"identity": 9, "proto": 17, "port": 54}, 2),
    ],
)
def test_nearest_rule_differs_least(packet, nearest):
    """The nearest allow is the one that fits most of identity, protocol and port."""
    told = explain(RULES, DENIED, 0, "a", "egress", **packet)
    assert told["nearest"] == RULES[nearest].as_json()


def test_nearest_rule_must_fit_something():
    """An allow that fits nothing of the packet is no advice."""
    told = explain(RULES, DENIED, 0, "a", "egress", identity=9, proto=1, port=8)
    assert told["nearest"] is None
    deny = {1: replace(RULES[1], action="deny")}
    assert explain(deny, DENIED, 0, "a", "egress", identity=200)["nearest"] is None
