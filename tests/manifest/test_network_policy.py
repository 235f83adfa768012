"""NetworkPolicy: what is absent, empty and wrong; its meaning is tested with the slow twin."""

from __future__ import annotations

import pytest

from fwd.model.manifest import PortMatch
from fwd.model.policy import PortRange
from tests.manifest.objects import error_of, read

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"


def policy(spec):
    """One policy's value."""
    (one,) = read(HEAD + f"spec: {{podSelector: {{}}, {spec}}}\n").policies
    return one


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("", True, False),
        ("ingress: []", True, False),
        ("egress: []", True, False),
        ("egress: [{}]", True, True),
        ("policyTypes: []", True, False),
        ("policyTypes: [Egress]", False, True),
        ("policyTypes: [Ingress, Egress]", True, True),
    ],
)
def test_directions(spec, ingress, egress):
    """Without types ingress always, egress with egress rules."""
    one = policy(spec)
    assert (one.ingress, one.egress) == (ingress, egress)


def test_absent_and_empty_differ():
    """No peers or an empty list of them: anybody. No rules: nobody."""
    assert policy("ingress: [{}]").rules[0].peers is None
    assert policy("ingress: [{from: []}]").rules[0].peers is None
    assert policy("ingress: [{ports: []}]").rules[0].ports == ()
    assert policy("ingress: []").rules == ()


def test_ports():
    """The protocol is TCP unless it is written; endPort makes a range."""
    ports = "{port: 80}, {protocol: UDP}, {port: 1, endPort: 9, protocol: SCTP}"
    (rule,) = policy(f"ingress: [{{ports: [{ports}]}}]").rules
    assert rule.ports == (
        PortMatch("tcp", PortRange(80, 80)),
        PortMatch("udp"),
        PortMatch("sctp", PortRange(1, 9)),
    )


def test_rules_know_their_place():
    """Index in their list, and line."""
    text = HEAD + "spec:\n  podSelector: {}\n  ingress:\n  - {}\n  - {}\n  egress:\n  - {}\n"
    (one,) = read(text).policies
    assert [(rule.direction, rule.index, rule.line) for rule in one.rules] == [
        ("ingress", 0, 7),
        ("ingress", 1, 8),
        ("egress", 0, 10),
    ]


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("policyTypes: [Ingress], egress: [{}]", "spec.egress: policyTypes leaves egress out"),
        ("policyTypes: [ingress]", "spec.policyTypes[0]: 'ingress' is not known here, did"),
        ("ingress: [{from: [{}]}]", "spec.ingress[0].from[0]: an empty peer means nobody"),
        ("ingress: [{to: []}]", "spec.ingress[0].to: unknown field"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]", "it stands alone"),
        ("ingress: [{from: [{ipBlock: {}}]}]", "ipBlock: cidr: missing"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]",
         "except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8"),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]", "not a part"),
        ("ingress: [{ports: [{port: http}]}]", "ports[0].port: 'http' is a name: not implemented"),
        ("ingress: [{ports: [{port: 70000}]}]", "70000 is out of range, write 1 to 65535"),
        ("ingress: [{ports: [{port: 80, endPort: 79}]}]", "endPort: 79 is less than port 80"),
        ("ingress: [{ports: [{endPort: 79}]}]", "endPort: it needs port"),
        ("ingress: [{ports: [{protocol: ICMP}]}]", "protocol: 'ICMP' is not known here"),
        ("podselector: {}", "spec.podselector: unknown field, did you mean 'podSelector'?"),
    ],
)  # fmt: skip
def test_wrong_policies(spec, error):
    """Contradictions, ranges and unknown fields, each with its place."""
    told = error_of(HEAD + f"spec: {{podSelector: {{}}, {spec}}}\n")
    assert told.startswith("m.yaml:4: ")
    assert error in told
