"""Services of manifests as service rows."""

from __future__ import annotations

import pytest

from fwd.control.compile import compile_world
from fwd.manifest.reader import ManifestError
from tests.control.manifests import node, pod

PODS = (
    pod("a", labels="app: web", spec="nodeName: n1", ip="10.0.0.9", more="fwd.io/netns: a")
    + pod("b", labels="app: web", spec="nodeName: n2", ip="10.0.2.9")
    + pod("c", labels="app: db", spec="nodeName: n2", ip="10.0.2.8")
)


def service(spec, *more):
    """One service's document, and others behind it."""
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
    return "---\n".join([f"{head}spec: {{{spec}}}\n", *more])


def slice_of(*endpoints, ports="{port: 8080}"):
    """One slice of service web."""
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\n"
        f"ports: [{ports}]\nendpoints: [{', '.join(endpoints)}]\n"
    )


def rows(manifests, text=""):
    """Service rows: (frontend, port, scope, flags, backends)."""
    return [
        (
            f"{one.frontend}:{one.port}/{one.proto}",
            one.scope,
            set(one.flags),
            [f"{b.ip}:{b.port} {b.state}" for b in one.backends],
        )
        for one in node(text, manifests).services
    ]


CLUSTER = "clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"


def test_selector_finds_known_pods():
    """By label, here and on other nodes, at the target port."""
    backends = ["10.0.0.9:8080 active", "10.0.2.9:8080 active"]
    assert rows(PODS + service(CLUSTER)) == [("10.96.0.1:80/tcp", "external", set(), backends)]
    compile_world(node("", PODS + service(CLUSTER)))


def test_slices_come_before_the_selector():
    """With a slice, its endpoints are the backends, each in its state."""
    ends = ("{addresses: [10.0.2.7]}", "{addresses: [10.0.2.6], conditions: {ready: false}}",
            "{addresses: [10.0.2.5], conditions: {serving: true, terminating: true}}")  # fmt: skip
    assert rows(PODS + service(CLUSTER, slice_of(*ends))) == [
        (
            "10.96.0.1:80/tcp",
            "external",
            set(),
            ["10.0.2.5:8080 terminating", "10.0.2.7:8080 active"],
        )
    ]


def test_slice_ports_are_found_by_name():
    """A port that the slice does not have has no backends."""
    spec = "clusterIP: 10.96.0.1, ports: [{name: a, port: 80}, {name: b, port: 81}]"
    made = rows(service(spec, slice_of("{addresses: [10.0.2.7]}", ports="{name: b, port: 9}")))
    assert [one[3] for one in made] == [[], ["10.0.2.7:9 active"]]


def test_local_policy_keeps_the_backends_of_this_node():
    """Policy Local for pods, by node name or by address."""
    flags = {"int_local", "affinity"}
    spec = CLUSTER + ", internalTrafficPolicy: Local, sessionAffinity: ClientIP"
    assert rows(PODS + service(spec)) == [
        ("10.96.0.1:80/tcp", "external", flags, ["10.0.0.9:8080 active"])
    ]
    ends = ("{addresses: [10.0.0.77], nodeName: n1}", "{addresses: [10.0.2.7], nodeName: n2}")
    assert rows(service(spec, slice_of(*ends)))[0][3] == ["10.0.0.77:8080 active"]


def test_frontends_for_the_outside():
    """Node port, external address, balancer; one row a scope where the policies differ."""
    spec = ("type: LoadBalancer, clusterIP: 10.96.0.1, externalIPs: [198.51.100.1], "
            "loadBalancerIP: 203.0.113.1, loadBalancerSourceRanges: [192.0.2.0/24], "
            "externalTrafficPolicy: Local, selector: {app: web}, "
            "ports: [{port: 80, nodePort: 30080}]")  # fmt: skip
    local, every = ["10.0.0.9:80 active"], ["10.0.0.9:80 active", "10.0.2.9:80 active"]
    two = {"routable", "ext_local", "two_scopes"}
    assert rows(PODS + service(spec)) == [
        ("10.96.0.1:80/tcp", "external", set(), every),
        ("192.0.2.1:30080/tcp", "external", {"node_port", *two}, local),
        ("192.0.2.1:30080/tcp", "internal", {"node_port", *two}, every),
        ("198.51.100.1:80/tcp", "external", {"external_ip", *two}, local),
        ("198.51.100.1:80/tcp", "internal", {"external_ip", *two}, every),
        ("203.0.113.1:80/tcp", "external", {"load_balancer", "source_range", *two}, local),
        ("203.0.113.1:80/tcp", "internal", {"load_balancer", "source_range", *two}, every),
    ]


@pytest.mark.parametrize(
    ("manifests", "text", "error"),
    [
        (slice_of(), "", "m.yaml:1: EndpointSlice default/web-1: there is no Service default/web"),
        (service(CLUSTER, slice_of("{addresses: [10.0.2.7]}"),
                 slice_of("{addresses: [10.0.2.7], conditions: {serving: true, terminating: true}}")
                 .replace("web-1", "web-2")), "",
         "EndpointSlice default/web-2: 10.0.2.7:8080 is terminating here and active in Endpoint"),
        (PODS + service("clusterIP: 10.96.0.1, selector: {app: web}, "
                        "ports: [{port: 80, targetPort: http}]"), "",
         "m.yaml:19: Service default/web: targetPort 'http' is a name"),
        (PODS + service(CLUSTER.replace("10.96.0.1", "10.0.2.8")), "",
         "m.yaml:16: Service default/web: clusterIP 10.0.2.8 is pod default/c's, give the service"),
        (service(CLUSTER.replace("10.96.0.1", "192.0.2.2")), "",
         "m.yaml:1: Service default/web: clusterIP 192.0.2.2 is peer n2's, give the service its"),
        (service(CLUSTER), "services: [{name: x, frontend: 10.96.0.1, port: 80}]\n",
         "m.yaml:4: Service default/web: 10.96.0.1:80/tcp (external) is service "),
        (service(CLUSTER) + "---\n" + service(CLUSTER).replace("name: web", "name: web2"), "",
         "m.yaml:9: Service default/web2: 10.96.0.1:80/tcp (external) is service "),
    ],
)  # fmt: skip
def test_contradictions_have_their_place(manifests, text, error):
    """Services that nobody has, that collide, or that ask for names."""
    with pytest.raises(ManifestError) as caught:
        node(text, manifests)
    assert error in str(caught.value)


def test_a_port_that_no_slice_knows_is_told():
    """Its name differs, so nobody is behind it."""
    found = node(
        "", service(CLUSTER, slice_of("{addresses: [10.0.2.7]}", ports="{name: h, port: 1}"))
    )
    (told,) = found.warnings
    assert told.startswith("m.yaml:4: Service default/web: no EndpointSlice has port ''/tcp")
    assert node("", service(CLUSTER, slice_of("{addresses: [10.0.2.7]}"))).warnings == ()
