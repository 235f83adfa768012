"""Policies of manifests against their slow twin, through the datapath's own lookup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.config.load import parse_node_text
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.control.manifests import expand
from fwd.control.policy import DIRECTIONS, explain
from fwd.datapath.binding import Datapath
from fwd.manifest.load import merge, parse_file
from fwd.model.rows import Params
from tests.models.netpol import DENIED, Packet, Pod, World, decide

NODE = """\
node: {name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}
peers: [{name: n2, ip: 192.0.2.2, pod_cidr: 10.0.2.0/24}]
endpoints:
  - {name: red/a, id: 10, ip: 10.0.0.10}
  - {name: blue/b, id: 11, ip: 10.0.0.11}
"""
SMALL = Params(ct_tcp=16, ct_any=16, ipcache=256, endpoints=16, lxc=16, policy=16384, peers=16,
               fragments=16, events=16)  # fmt: skip
PODS = [
    Pod("a", "red", {"app": "web", "tier": "1"}, "10.0.0.10"),
    Pod("b", "blue", {"app": "db"}, "10.0.0.11"),
    Pod("c", "red", {"app": "db", "tier": "2"}, "10.0.2.12"),
    Pod("d", "blue", {}, "10.0.2.13"),
    Pod("e", "red", {"app": "web", "tier": "1"}, "10.0.2.14"),
]
NAMESPACES = {
    "red": {"kubernetes.io/metadata.name": "red", "team": "x"},
    "blue": {"kubernetes.io/metadata.name": "blue"},
}
HOST, REMOTE = "192.0.2.1", "192.0.2.2"
OUTSIDE = ["8.8.8.8", "10.9.1.1", "10.9.2.1", "172.16.0.5"]
OTHERS = [*(pod.ip for pod in PODS), HOST, REMOTE, *OUTSIDE]
BLOCKS = ["0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.1.0/24", "8.8.8.8/32", "10.0.2.12/32",
          "172.16.0.0/12"]  # fmt: skip
PORTS = [1, 79, 80, 81, 443, 8080, 8095, 65535]

values = st.sampled_from(["web", "db", "1", "2", "x"])
keys = st.sampled_from(["app", "tier", "team"])


@st.composite
def expressions(draw):
    """One matchExpressions item."""
    operator = draw(st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]))
    one = {"key": draw(keys), "operator": operator}
    if operator in ("In", "NotIn"):
        one["values"] = draw(st.lists(values, min_size=1, max_size=2))
    return one


@st.composite
def selectors(draw, more_keys=()):
    """A label selector, often the empty one."""
    found = {}
    if draw(st.booleans()):
        all_keys = st.one_of(keys, st.sampled_from(more_keys)) if more_keys else keys
        key = draw(all_keys)
        space = st.sampled_from(["red", "blue"])
        found["matchLabels"] = {key: draw(values if key in ("app", "tier", "team") else space)}
    if draw(st.integers(0, 3)) == 0:
        found["matchExpressions"] = [draw(expressions())]
    return found


@st.composite
def blocks(draw):
    """A CIDR with exceptions inside it."""
    from ipaddress import ip_network  # noqa: PLC0415

    cidr = draw(st.sampled_from(BLOCKS))
    inner = [one for one in BLOCKS if one != cidr
             and ip_network(one).subnet_of(ip_network(cidr))]  # fmt: skip
    excepts = draw(st.lists(st.sampled_from(inner), max_size=2, unique=True)) if inner else []
    return {"cidr": cidr} | ({"except": excepts} if excepts else {})


@st.composite
def k8s_rules(draw, side):
    """One rule of a NetworkPolicy."""
    rule = {}
    spaces = selectors(("kubernetes.io/metadata.name",))
    peer = st.one_of(
        st.fixed_dictionaries({"podSelector": selectors()}),
        st.fixed_dictionaries({"namespaceSelector": spaces}),
        st.fixed_dictionaries({"podSelector": selectors(), "namespaceSelector": spaces}),
        st.fixed_dictionaries({"ipBlock": blocks()}),
    )
    if draw(st.booleans()):
        rule[side] = draw(st.lists(peer, max_size=2))
    if draw(st.booleans()):
        rule["ports"] = draw(st.lists(k8s_ports(), max_size=2))
    return rule


@st.composite
def k8s_ports(draw):
    """One port of a NetworkPolicy."""
    port = {}
    if draw(st.booleans()):
        port["protocol"] = draw(st.sampled_from(["TCP", "UDP", "SCTP"]))
    if draw(st.integers(0, 3)):
        port["port"] = draw(st.sampled_from(PORTS))
        if draw(st.booleans()):
            port["endPort"] = draw(st.sampled_from([n for n in PORTS if n >= port["port"]]))
    return port


@st.composite
def k8s_policies(draw):
    """A NetworkPolicy without a name."""
    spec = {"podSelector": draw(selectors())}
    ingress = draw(st.booleans())
    if ingress:
        spec["ingress"] = draw(st.lists(k8s_rules("from"), max_size=2))
    if draw(st.booleans()):
        spec["egress"] = draw(st.lists(k8s_rules("to"), max_size=2))
    if draw(st.booleans()):
        types = [name for name in ("Ingress", "Egress") if spec.get(name.lower())]
        spec["policyTypes"] = types or ["Egress"]
    namespace = draw(st.sampled_from(["red", "blue"]))
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace}, "spec": spec}  # fmt: skip


@st.composite
def cilium_rules(draw, side):
    """One rule of a CiliumNetworkPolicy."""
    rule = {}
    kind = draw(st.sampled_from(["Endpoints", "Entities", "CIDRSet", None]))
    spaced = selectors(("io.kubernetes.pod.namespace",))
    entities = st.sampled_from(["world", "host", "cluster", "remote-node", "all"])
    items = {"Endpoints": spaced, "Entities": entities, "CIDRSet": blocks()}
    if kind:
        rule[f"{side}{kind}"] = draw(st.lists(items[kind], min_size=1, max_size=2))
    if draw(st.booleans()):
        ports = draw(st.lists(cilium_ports(), min_size=1, max_size=2))
        rule["toPorts"] = [{"ports": ports}]
    elif draw(st.booleans()):
        rule["icmps"] = [{"fields": [{"type": draw(st.sampled_from([0, 8]))}]}]
    return rule


@st.composite
def cilium_ports(draw):
    """One port of a CiliumNetworkPolicy."""
    first = draw(st.sampled_from([0, *PORTS]))
    port = {"port": str(first)}
    if draw(st.booleans()):
        port["protocol"] = draw(st.sampled_from(["TCP", "UDP", "SCTP", "ANY"]))
    if first and draw(st.booleans()):
        port["endPort"] = draw(st.sampled_from([n for n in PORTS if n >= first]))
    return port


@st.composite
def cilium_policies(draw):
    """A Cilium policy without a name, of one namespace or of all."""
    spec = {}
    for section, side in (("ingress", "from"), ("ingressDeny", "from"),
                          ("egress", "to"), ("egressDeny", "to")):  # fmt: skip
        if draw(st.integers(0, 2)) == 0:
            spec[section] = draw(st.lists(cilium_rules(side), max_size=2))
    if draw(st.integers(0, 4)) == 0:
        spec["enableDefaultDeny"] = {draw(st.sampled_from(["ingress", "egress"])): draw(
            st.booleans())}  # fmt: skip
    if draw(st.booleans()):
        spec["endpointSelector"] = draw(selectors(("io.kubernetes.pod.namespace",)))
        return {"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
                "metadata": {}, "spec": spec}  # fmt: skip
    spec["endpointSelector"] = draw(selectors())  # another namespace here is an error
    namespace = draw(st.sampled_from(["red", "blue"]))
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
            "metadata": {"namespace": namespace}, "spec": spec}  # fmt: skip


def pod_object(pod: Pod) -> dict:
    """A twin's pod as its manifest."""
    place = {"n1": pod.ip.startswith("10.0.0."), "n2": pod.ip.startswith("10.0.2.")}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
        "spec": {"nodeName": next(name for name, here in place.items() if here)},
        "status": {"podIP": pod.ip},
    }  # fmt: skip


def compiled(policies):
    """The world of node n1 with all pods and ``policies``."""
    named = [one | {"metadata": one["metadata"] | {"name": f"p{i}"}}
             for i, one in enumerate(policies)]  # fmt: skip
    team = {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "red", "labels": {"team": "x"}}}  # fmt: skip
    objects = [*map(pod_object, PODS), team, *named]
    text = "\n---\n".join(json.dumps(one) for one in objects)
    node = parse_node_text(NODE, Path("n1.yaml"))
    return compile_world(expand(node, merge(parse_file(text, "m.yaml"))))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(k8s_policies(), cilium_policies()), min_size=1, max_size=3), st.data())
def test_entries_decide_as_the_manifests_do(policies, data):
    """For every other side and sampled ports the tables say what the manifests say."""
    world = compiled(policies)
    twin = World(PODS, NAMESPACES, policies, HOST, REMOTE)
    probes = data.draw(st.lists(st.tuples(st.sampled_from([6, 17, 132]), st.sampled_from(PORTS)),
                                min_size=2, max_size=3))  # fmt: skip
    probes += [(1, 8), (1, 0)]
    with Datapath.create(SMALL) as dp:
        apply(dp, diff(None, world))
        for pod, lxc_id in ((PODS[0], 10), (PODS[1], 11)):
            for other in OTHERS:
                identity = dp.ipcache_lookup(parse(other)).identity
                for direction, number in DIRECTIONS.items():
                    for proto, port in probes:
                        wanted = decide(twin, pod, Packet(other, proto, port, direction))
                        got, entry, _ = dp.policy_lookup(lxc_id, number, identity, proto, port)
                        assert got == wanted, (pod.name, other, direction, proto, port)
                        assert (entry is None) == (got == DENIED)


def parse(text):
    """An address of the tests."""
    from ipaddress import ip_address  # noqa: PLC0415

    return ip_address(text)


CNP = {
    "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
    "metadata": {"namespace": "red"},
    "spec": {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {"fromEndpoints": [{"matchLabels": {"app": "db"}}],
             "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]},
        ],
        "ingressDeny": [{"fromEntities": ["remote-node"]}],
    },
}  # fmt: skip


def test_verdict_names_policy_rule_and_line():
    """An entry's rule is the manifest's: kind, policy, item, file and line."""
    world = compiled([CNP])
    with Datapath.create(SMALL) as dp:
        apply(dp, diff(None, world))
        identity = dp.ipcache_lookup(parse("10.0.2.12")).identity
        _, entry, _ = dp.policy_lookup(10, 1, identity, 6, 80)
        told = explain(world.rules, 0, entry.rule_id, "red/a", "ingress")
        assert told["manifest"] == "CiliumNetworkPolicy"
        assert (told["policy"], told["index"]) == ("red/p0", 0)
        assert (told["file"], told["line"]) == ("m.yaml", 13)
        drop, entry, _ = dp.policy_lookup(10, 1, 6, 6, 80)
        told = explain(world.rules, drop, entry.rule_id, "red/a", "ingress")
        assert (drop, told["action"], told["policy"]) == (181, "deny", "red/p0")


def test_default_deny_names_the_policies_and_the_nearest_rule():
    """What selects the endpoint is told once a policy, the rule that came nearest with it."""
    world = compiled([CNP])
    identity = next(row.identity for row in world.ipcache if str(row.prefix) == "10.0.2.12/32")
    told = explain(world.rules, DENIED, 0, "red/a", "ingress", identity=identity, proto=6, port=81)
    because = [(one["kind"], one.get("policy")) for one in told["because"]]
    assert because == [("selects", "red/p0"), ("localhost", None)]
    assert told["nearest"]["policy"] == "red/p0"
    assert told["nearest"]["port"] == "80"


@pytest.mark.parametrize(
    ("selector", "enforced"),
    [({"app": "web"}, ["red/a"]), ({"app": "none"}, []), ({}, ["red/a"])],
)
def test_only_selected_endpoints_are_enforced(selector, enforced):
    """A policy of namespace red never touches blue, and one that selects nobody does nothing."""
    policy = CNP | {"spec": {"endpointSelector": {"matchLabels": selector}, "egress": [{}]}}
    world = compiled([policy])
    rules = [rule for rule in world.rules.values() if rule.kind == "selects"]
    assert [(rule.endpoint, rule.direction) for rule in rules] == [
        (name, "egress") for name in enforced
    ]


def test_entities_mean_all_the_numbers_they_have():
    """Nodes of a number of their own, plain peers, well-known pods, both halves of the world."""
    text = NODE.replace("pod_cidr: 10.0.2.0/24}", "pod_cidr: 10.0.2.0/24}, {name: old, ip: "
                        "192.0.2.3, pod_cidr: 10.0.3.0/24, vni: 9, identity: 777}")  # fmt: skip
    text += "ipcache:\n" + "".join(
        f"  - {{prefix: {prefix}, identity: {identity}}}\n"
        for prefix, identity in (
            ("192.0.2.2/32", 7), ("192.0.2.9/32", 0x02000001), ("10.0.2.5/32", 102),
            ("203.0.113.0/24", 9), ('"2001:db8::/32"', 10), ("198.51.100.0/24", 0x01000005),
        )
    )  # fmt: skip
    entities = ("world", "host", "cluster", "remote-node")
    policies = "\n---\n".join(
        json.dumps({
            "apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy",
            "metadata": {"name": entity},
            "spec": {"endpointSelector": {}, "ingress": [{"fromEntities": [entity]}]},
        })
        for entity in entities
    )  # fmt: skip
    pods = "\n---\n".join(json.dumps(pod_object(pod)) for pod in PODS)
    node = parse_node_text(text, Path("n1.yaml"))
    found = expand(node, merge(parse_file(f"{pods}\n---\n{policies}", "m.yaml")))
    meant = {
        entity: {rule.identity for rule in found.rules if rule.policy == entity and
                 rule.kind == "rule"}
        for entity in entities
    }  # fmt: skip
    assert meant["world"] == {2, 9, 10, 0x01000005}
    assert meant["host"] == {1}
    assert meant["remote-node"] == {6, 7, 0x02000001}
    numbers = {one.identity for one in found.endpoints} | {
        row.identity for row in found.ipcache if 256 <= row.identity < 1 << 24
    }
    assert meant["cluster"] == {1, 3, 4, 5, 6, 7, 8, 102, 777, 0x02000001, *numbers}
