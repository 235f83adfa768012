"""Manifests in the node file: endpoints, remote pods, CIDRs, and what contradicts."""

from __future__ import annotations

import pytest

from fwd.control.compile import compile_world
from fwd.manifest.reader import ManifestError
from tests.control.manifests import node, pod

TWINS = (
    "endpoints: [{name: a, id: 1, ip: 10.0.0.9, labels: {app: x}}, "
    "{name: b, id: 2, ip: 10.0.0.8, labels: {app: x}}]\n"
    "ipcache: [{prefix: 10.0.0.9/32, identity: 300}, {prefix: 10.0.0.8/32, identity: 301}]\n"
)
"""Two pods of the same labels that two raw rows tell apart."""
HERE = "endpoints: [{name: default/a, id: 1, ip: 10.0.0.9}]\n"


def rows(found):
    """Rows of the ipcache: text to (identity, tunnel endpoint)."""
    return {
        str(row.prefix): (row.identity, row.tunnel_endpoint and str(row.tunnel_endpoint))
        for row in found.ipcache
    }


def test_endpoint_gets_labels_and_identity_of_its_pod():
    """The node file gives address and namespace, the manifest says who it is."""
    found = node(HERE, pod("a", labels="app: x", spec="nodeName: n1", more="fwd.io/netns: a"))
    (one,) = found.endpoints
    assert (one.labels, one.netns, one.file) == ({"app": "x"}, "a", "")
    assert found.identities[one.identity][0] == "k8s:app=x"
    assert found.warnings == ()


def test_pod_with_address_and_namespace_is_an_endpoint():
    """Its id follows from its name, its place is the manifest."""
    text = pod("b", labels="app: x", spec="nodeName: n1", ip="10.0.0.8", more="fwd.io/netns: b")
    (one,) = node("", text).endpoints
    assert (one.name, one.netns, one.file, one.line) == ("default/b", "b", "m.yaml", 1)
    assert one.id == node(HERE, text).endpoints[1].id
    assert [str(ip) for ip in one.ip] == ["10.0.0.8"]
    rule = compile_world(node("", text)).rules[1]
    assert (rule.kind, rule.file, rule.line) == ("default-allow", "m.yaml", 1)


def test_remote_pods_live_behind_their_peer():
    """A row each address; a raw row of the same prefix stays."""
    text = pod("b", spec="nodeName: n2", ip="10.0.2.9, fd00::9")
    found = rows(node("", text))
    assert {prefix: tunnel for prefix, (_, tunnel) in found.items()} == {
        "10.0.2.9/32": "192.0.2.2",
        "fd00::9/128": "192.0.2.2",
    }
    raw = "ipcache: [{prefix: 10.0.2.9/32, identity: 300}]\n"
    assert rows(node(raw, text)) == {
        "10.0.2.9/32": (300, None),
        "fd00::9/128": (300, "192.0.2.2"),
    }


def test_raw_row_may_name_a_pod():
    """Then its identity is the pod's, and the world's while nobody knows the pod."""
    raw = "ipcache: [{prefix: 10.0.2.9/32, pod: default/b, tunnel_endpoint: 192.0.2.2}]\n"
    assert rows(node(raw)) == {"10.0.2.9/32": (2, "192.0.2.2")}
    found = node(raw, pod("b", labels="app: x", spec="nodeName: n2"))
    ((identity, _),) = rows(found).values()
    assert found.identities[identity][0] == "k8s:app=x"
    assert found.warnings == ()


def test_only_prefixes_of_policies_that_matter_here_are_known():
    """CIDRs get rows where their policy selects somebody."""
    policy = (
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p}\n"
        "spec: {endpointSelector: {matchLabels: {app: APP}}, "
        "egress: [{toCIDRSet: [{cidr: 172.16.0.0/12, except: [172.16.1.0/24]}]}]}\n"
    )
    text = pod("a", labels="app: x")
    found = node(HERE, text + policy.replace("APP", "x"))
    assert set(rows(found)) == {"172.16.0.0/12", "172.16.1.0/24"}
    assert (found.endpoints[0].enforce.ingress, found.endpoints[0].enforce.egress) == (False, True)
    assert rows(node(HERE, text + policy.replace("APP", "y"))) == {}


@pytest.mark.parametrize(
    ("text", "manifests", "error"),
    [
        (HERE, pod("a", spec="nodeName: n2"),
         "m.yaml:1: Pod default/a: it is on n2, and endpoint default/a in n1.yaml:3 is on n1"),
        (TWINS, "",
         "n1.yaml:4: ipcache: 10.0.0.8/32 is endpoint b, whose identity is 300: write that, or"),
        (HERE, pod("a", ip="10.0.0.8"), "its addresses are not those of endpoint default/a"),
        (HERE, pod("b", ip="10.0.0.9"), "Pod default/b: 10.0.0.9 is default/a's already"),
        ("", pod("b", ip="192.0.2.2"), "192.0.2.2 is peer n2's already"),
        ("", pod("a", ip="10.0.2.8") + pod("b", ip="10.0.2.8"), "m.yaml:6: Pod default/b: 10.0"),
        ("", pod("b", spec="nodeName: n1", ip="10.1.0.1", more="fwd.io/netns: b"),
         "10.1.0.1 is outside node.pod_cidr (10.0.0.0/24)"),
        ("", pod("b", spec="nodeName: n1", more="fwd.io/netns: b"), "without an address"),
    ],
)  # fmt: skip
def test_contradictions(text, manifests, error):
    """Two owners, two places, no address: refused with file and line."""
    with pytest.raises(ManifestError) as caught:
        node(text, manifests)
    assert error in str(caught.value)


def test_endpoint_that_nobody_knows_is_told():
    """It waits as init, and the note says what for."""
    (told,) = node(HERE).warnings
    assert told.startswith("n1.yaml:3: endpoint default/a: nobody says who it is")
    assert node(HERE).endpoints[0].identity == 5


@pytest.mark.parametrize(
    ("manifests", "warning"),
    [
        (pod("b", spec="nodeName: n1", ip="10.0.0.8"), "not created, add an endpoint of this name"),
        (pod("b", spec="nodeName: n3", ip="10.0.0.8"), "node n3 is no peer of this node"),
        (pod("b", spec="nodeName: n2"), "its address is not known, add the annotation fwd.io/ip"),
        (pod("b", ip="10.0.2.8"), "nodeName is missing"),
    ],
)
def test_what_has_no_effect_is_told(manifests, warning):
    """Never silence: a pod that leads to nothing is a warning with its place."""
    (told,) = node("", manifests).warnings
    assert told.startswith("m.yaml:1: Pod default/b: ")
    assert warning in told
