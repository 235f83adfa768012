"""Services and EndpointSlices."""

from __future__ import annotations

import pytest

from tests.manifest.objects import error_of, read

HEAD = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
"""


def service(spec, status=""):
    """One service's value."""
    (one,) = read(HEAD + f"spec: {{{spec}}}\n" + status).services
    return one


def test_cluster_ip_service():
    """Ports have defaults, selectors mean the service's namespace."""
    one = service("clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]")
    assert [str(ip) for ip in one.cluster_ips] == ["10.96.0.1"]
    assert (one.ports[0].proto, one.ports[0].target, one.affinity_timeout_s) == ("tcp", 80, 0)
    assert one.selector.matches({"app": "web", "io.kubernetes.pod.namespace": "default"})
    assert not one.selector.matches({"app": "web", "io.kubernetes.pod.namespace": "red"})
    assert not one.internal_local


def test_everything_a_service_can_say():
    """Node port, affinity, policies, addresses of other kinds."""
    one = service(
        "type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], "
        "sessionAffinity: ClientIP, externalIPs: [198.51.100.1], externalTrafficPolicy: Local, "
        "internalTrafficPolicy: Local, loadBalancerSourceRanges: [10.0.0.0/8], "
        "ports: [{name: a, port: 53, protocol: UDP, targetPort: dns, nodePort: 30053}]",
        "status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}",
    )
    assert [str(ip) for ip in one.cluster_ips] == ["10.96.0.1", "fd00::1"]
    assert one.affinity_timeout_s == 10800
    assert one.internal_local
    assert one.external_local
    assert [str(ip) for ip in one.external_ips + one.balancer_ips] == [
        "198.51.100.1",
        "203.0.113.1",
    ]
    assert (one.ports[0].proto, one.ports[0].target, one.ports[0].node_port) == (
        "udp",
        "dns",
        30053,
    )


def test_headless_service_has_no_frontend():
    """None is a word here, not an address."""
    assert service("clusterIP: None, ports: [{port: 80}]").cluster_ips == ()


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("ports: [{port: 80}]", "spec: clusterIP: missing, nothing allocates one here"),
        ("clusterIP: 10.96.0.1, ports: [{port: 0}]", "spec.ports[0].port: 0 is out of range"),
        ("clusterIP: 10.96.0.1, ports: [{port: 65536}]", "65536 is out of range, write 1 to 65535"),
        ("clusterIP: None, clusterIPs: [10.96.0.1]", "clusterIP: None and an address contradict"),
        ("clusterIP: 10.96.0.1, clusterIPs: [10.96.0.2]", "the first one is clusterIP, write 10.9"),
        ("clusterIPs: [10.96.0.1, 10.96.0.2]", "clusterIPs: two addresses of one family, keep one"),
        ("clusterIP: 10.96.0.1, ports: [{}]", "spec.ports[0]: port: missing"),
        ("clusterIP: 10.96.0.1, ports: [{name: a, port: 1}, {name: b, port: 1}]",
         "ports[1]: port 1/tcp stands here already"),
        ("clusterIP: 10.96.0.1, ports: [{port: 1}, {port: 2}]", "needs a name of its own"),
        ("clusterIP: 10.96.0.1, ports: [{port: 1, nodePort: 3}]", "a ClusterIP service has none"),
        ("type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 1}]", "nodePort: missing"),
        ("type: ExternalName, externalName: a.b", "spec.externalName: names of other services: no"),
        ("clusterIP: 10.96.0.1, sessionAffinityConfig: {}", "set it to ClientIP or remove this"),
        ("clusterIP: 10.96.0.1, externalTrafficPolicy: local", "did you mean 'Local'?"),
        ("clusterIP: 10.96.0.1, publishNotReadyAddresses: true", "not implemented, remove it"),
    ],
)  # fmt: skip
def test_wrong_services(spec, error):
    """Ports out of range, what is missing, what contradicts itself."""
    told = error_of(HEAD + f"spec: {{{spec}}}\n")
    assert told.startswith("m.yaml:4: ")
    assert error in told


def endpoints(conditions):
    """The endpoints of a slice with one endpoint."""
    text = f"endpoints: [{{addresses: [10.0.0.9], conditions: {{{conditions}}}}}]\n"
    (one,) = read(SLICE + text).slices
    return one.endpoints


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ("", "active"),
        ("ready: true", "active"),
        ("ready: true, serving: true, terminating: false", "active"),
        ("ready: false", None),
        ("ready: false, serving: true, terminating: true", "terminating"),
        ("ready: false, serving: false, terminating: true", None),
        ("terminating: true", "terminating"),
    ],
)
def test_conditions_of_a_backend(conditions, state):
    """Ready ones take traffic, terminating ones keep what they have, others get none."""
    assert endpoints(conditions)[0].state == state


def test_cilium_s_annotations_are_refused():
    """A list that denies would silently allow; other people's annotations are theirs."""
    text = HEAD + "spec: {clusterIP: 10.96.0.1, ports: [{port: 1}]}\n"
    note = text.replace(
        "{name: ", "{annotations: {service.cilium.io/src-ranges-policy: deny}, name: "
    )
    assert "service.cilium.io/src-ranges-policy: not implemented, remove it" in error_of(note)
    assert read(note.replace("service.cilium.io", "example.com")).services


def test_slice_names_its_service_and_ports():
    """Ports are found by name and protocol."""
    text = "ports: [{name: a, port: 8080}, {name: a, protocol: UDP, port: 53}]\n"
    (one,) = read(SLICE + text).slices
    assert one.service == "default/web"
    assert one.ports == {("a", "tcp"): 8080, ("a", "udp"): 53}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("addressType: FQDN\n", "addressType: 'FQDN' is not known here, write IPv4 or IPv6"),
        ("addressType: IPv6\nendpoints: [{addresses: [10.0.0.1]}]\n", "is not of addressType IPv6"),
        ("endpoints: [{}]\n", "endpoints[0]: addresses: missing"),
        ("ports: [{port: 1}, {port: 2}]\n", "ports[1]: two ports have this name and protocol"),
        ("ports: [{name: a}]\n", "ports[0]: port: missing"),
        ("endpoints: [{addresses: [10.0.0.1], condition: {}}]\n", "did you mean 'conditions'?"),
    ],
)
def test_wrong_slices(text, error):
    """The error names the item."""
    assert error in error_of(SLICE + text)


def test_slice_without_its_service():
    """The label is what ties a slice to a service."""
    text = SLICE.replace("kubernetes.io/service-name: web", "a: b")
    assert "kubernetes.io/service-name is missing" in error_of(text)
