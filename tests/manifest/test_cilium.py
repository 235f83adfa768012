"""Cilium's policies: the subset of layers 3 and 4, and everything else as an error."""

from __future__ import annotations

import pytest

from fwd.model.manifest import Peer, PortMatch
from fwd.model.policy import PortRange
from fwd.model.selector import Requirement
from tests.manifest.objects import error_of, read

HEAD = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: red}\n"
WIDE = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\n"
NAMESPACE = "io.kubernetes.pod.namespace"


def policy(spec, head=HEAD):
    """One policy's value."""
    (one,) = read(head + f"spec: {{endpointSelector: {{}}, {spec}}}\n").policies
    return one


def peers(spec):
    """The peers of the only rule."""
    return policy(spec).rules[0].peers


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("", False, False),
        ("ingress: []", False, False),
        ("ingress: [{}]", True, False),
        ("egressDeny: [{}]", False, True),
        ("ingress: [{}], enableDefaultDeny: {ingress: false}", False, False),
        ("enableDefaultDeny: {egress: true}", False, True),
    ],
)
def test_default_deny(spec, ingress, egress):
    """A direction with a rule is denied by default, unless the policy says otherwise."""
    one = policy(spec)
    assert (one.ingress, one.egress) == (ingress, egress)


def test_rule_without_anything_allows_nobody():
    """`- {}` only turns default deny on; ports alone mean anybody."""
    assert peers("ingress: [{}]") == ()
    assert peers("ingress: [{fromEndpoints: []}]") == ()
    assert peers("ingress: [{toPorts: [{ports: [{port: '80'}]}]}]") is None
    assert peers("ingress: [{icmps: [{fields: [{type: 8}]}]}]") is None


def test_selectors_mean_the_policy_s_namespace():
    """Unless they name one; clusterwide they mean any pod."""
    own = Requirement(NAMESPACE, "In", ("red",))
    assert peers("ingress: [{fromEndpoints: [{}]}]")[0].selector.requirements == (own,)
    app = Requirement("app", "In", ("web",))
    for key in ("app", "k8s:app", "any:app"):
        text = f"ingress: [{{fromEndpoints: [{{matchLabels: {{'{key}': web}}}}]}}]"
        assert peers(text)[0].selector.requirements == (app, own)
    other = f"{{matchLabels: {{'k8s:{NAMESPACE}': blue}}}}"
    found = peers(f"ingress: [{{fromEndpoints: [{other}]}}]")[0].selector
    assert found.requirements == (Requirement(NAMESPACE, "In", ("blue",)),)
    wide = policy("", WIDE)
    assert wide.origin.name == "p"
    assert wide.subject.requirements == (Requirement(NAMESPACE, "Exists"),)


def test_other_peers():
    """Entities, CIDRs and CIDR sets side by side."""
    found = peers(
        "egress: [{toEntities: [world, all], toCIDR: [10.0.0.0/8], "
        "toCIDRSet: [{cidr: 172.16.0.0/12, except: [172.16.1.0/24]}]}]"
    )
    assert found[:2] == (Peer(entity="world"), Peer(entity="all"))
    assert [(str(one.cidr), list(map(str, one.excepts))) for one in found[2:]] == [
        ("10.0.0.0/8", []),
        ("172.16.0.0/12", ["172.16.1.0/24"]),
    ]


def test_ports_and_icmp():
    """ANY is all three protocols, port 0 all ports; ICMP types have names and families."""
    text = "{port: '53', protocol: ANY}, {port: '0', protocol: TCP}, {port: '1', endPort: 9}"
    (rule,) = policy(f"egress: [{{toPorts: [{{ports: [{text}]}}]}}]").rules
    every = ["tcp", "udp", "sctp"]
    assert rule.ports == (
        *(PortMatch(proto, PortRange(53, 53)) for proto in every),
        PortMatch("tcp"),
        *(PortMatch(proto, PortRange(1, 9)) for proto in every),
    )
    text = "{type: EchoRequest}, {family: IPv6, type: EchoRequest}, {type: 3}, {type: '11'}"
    (rule,) = policy(f"egress: [{{icmps: [{{fields: [{text}]}}]}}]").rules
    assert [(one.proto, one.ports.first) for one in rule.ports] == [
        ("icmp", 8),
        ("icmpv6", 128),
        ("icmp", 3),
        ("icmp", 11),
    ]


def test_specs_are_policies_of_one_name():
    """`spec` and each of `specs` count."""
    spec = "{endpointSelector: {}, egress: [{}]}"
    found = read(HEAD + f"spec: {spec}\nspecs: [{spec}, {spec}]\n").policies
    assert [one.origin.name for one in found] == ["red/p"] * 3


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("ingress: [{toPorts: [{ports: [{port: '80'}], rules: {http: []}}]}]",
         "spec.ingress[0].toPorts[0].rules: rules of layer 7: not implemented, remove it"),
        ("egress: [{toFQDNs: [{matchName: a.b}]}]", "toFQDNs: rules by DNS name: not implemented"),
        ("egress: [{toServices: []}]", "toServices: rules by service: not implemented"),
        ("egress: [{toGroups: []}]", "not implemented, remove it"),
        ("ingress: [{fromNodes: []}]", "not implemented, remove it"),
        ("ingress: [{fromRequires: []}]", "not implemented, remove it"),
        ("ingress: [{authentication: {mode: required}}]", "not implemented, remove it"),
        ("ingress: [{fromCIDRSet: [{cidrGroupRef: a}]}]", "cidrGroupRef: CIDR groups: not impl"),
        ("nodeSelector: {}", "spec.nodeSelector: policies of nodes (the host firewall): not"),
        ("ingress: [{fromEntities: [kube-apiserver]}]", "'kube-apiserver' is not known here"),
        ("ingress: [{toEntities: [world]}]", "toEntities: unknown field, did you mean 'fromEntit"),
        ("ingress: [{fromCIDR: [10.0.0.1/8]}]", "fromCIDR[0]: '10.0.0.1/8' has bits set behind"),
        ("ingress: [{fromEndpoints: [{matchLabels: {'reserved:host': ''}}]}]", "write the entity"),
        ("ingress: [{fromEndpoints: [{matchLabels: {'aws:x': ''}}]}]", "source 'aws' are"),
        ("ingress: [{toPorts: [{ports: [{port: http}]}]}]", "port: 'http' is a name: not impl"),
        ("ingress: [{toPorts: [{ports: [{port: '65536'}]}]}]", "65536 is out of range"),
        ("ingress: [{toPorts: [{ports: [{port: '0', endPort: 9}]}]}]", "port 0 means all ports"),
        ("ingress: [{toPorts: [{ports: [{endPort: 9, protocol: TCP}]}]}]", "it needs port"),
        ("ingress: [{toPorts: [{ports: [{}]}]}]", "ports[0]: port: missing"),
        ("ingress: [{toPorts: [{}]}]", "toPorts[0]: ports: missing"),
        ("ingress: [{icmps: [{fields: [{type: 256}]}]}]", "type: 256 is out of range, write 0 to"),
        ("ingress: [{icmps: [{fields: [{}]}]}]", "fields[0]: type: missing"),
        ("ingress: [{icmps: [{}]}]", "icmps[0]: fields: missing"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_or_wrong(spec, error):
    """Never silence: each has its place and what to do."""
    told = error_of(HEAD + f"spec: {{endpointSelector: {{}}, {spec}}}\n")
    assert told.startswith("m.yaml:4: ")
    assert error in told


def test_policy_without_subject():
    """Nobody is selected by leaving the selector out."""
    assert "spec: endpointSelector: missing" in error_of(HEAD + "spec: {egress: [{}]}\n")
    assert "spec: missing" in error_of(HEAD)


def test_a_namespaced_policy_selects_nobody_elsewhere():
    """Its own namespace is implied whatever labels are asked for; another one is an error."""
    own = Requirement(NAMESPACE, "In", ("red",))

    def subject(selector, head=HEAD):
        (one,) = read(head + f"spec: {{endpointSelector: {selector}, ingress: [{{}}]}}\n").policies
        return one.subject.requirements

    assert subject("{}") == (own,)
    assert subject(f"{{matchLabels: {{'k8s:{NAMESPACE}': red}}}}") == (own,)
    exists = f"{{matchExpressions: [{{key: {NAMESPACE}, operator: Exists}}]}}"
    assert subject(exists) == (Requirement(NAMESPACE, "Exists"), own)
    team = "{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': x}}"
    assert subject(team)[-1] == own
    other = f"{{matchLabels: {{'k8s:{NAMESPACE}': blue}}}}"
    told = error_of(HEAD + f"spec: {{endpointSelector: {other}, ingress: [{{}}]}}\n")
    assert told.startswith("m.yaml:4: spec.endpointSelector: it selects in red only")
    assert subject(other, WIDE) == (Requirement(NAMESPACE, "In", ("blue",)),)
