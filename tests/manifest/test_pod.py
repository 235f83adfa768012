"""Pods and namespaces."""

from __future__ import annotations

import pytest

from tests.manifest.objects import error_of, read

POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: red, labels: {{app: web}}, annotations: {{{annotations}}}}}
spec: {{{spec}}}
status: {{{status}}}
"""


def pod(*, annotations="", spec="nodeName: n1", status=""):
    """One pod's text."""
    return POD.format(annotations=annotations, spec=spec, status=status)


def test_pod_says_labels_node_and_addresses():
    """Labels are the identity's; addresses are in the status or the annotation."""
    (one,) = read(pod(annotations='fwd.io/ip: "10.0.0.9, fd00::9", fwd.io/netns: web')).pods
    assert (one.origin.name, one.node_name, one.netns) == ("red/web", "n1", "web")
    assert [str(ip) for ip in one.ips] == ["10.0.0.9", "fd00::9"]
    assert one.labels["app"] == "web"
    assert one.labels["io.kubernetes.pod.namespace"] == "red"
    (two,) = read(pod(status="podIP: 10.0.0.9, podIPs: [{ip: 10.0.0.9}, {ip: 'fd00::9'}]")).pods
    assert two.ips == one.ips
    (three,) = read(pod(spec="serviceAccountName: robot, restartPolicy: Always")).pods
    assert three.labels["io.cilium.k8s.policy.serviceaccount"] == "robot"
    assert (three.node_name, three.ips) == (None, ())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"spec": "nodename: n1"}, "m.yaml:4: spec.nodename: unknown field, did you mean 'nodeN"),
        ({"spec": "hostNetwork: true"}, "spec.hostNetwork: a pod in the host's network is"),
        ({"spec": "containers: [{ports: [{hostPort: 80}]}]"}, "ports[0].hostPort: host ports: not"),
        ({"annotations": "fwd.io/ipp: x"}, "metadata.annotations: fwd.io/ipp: unknown, here: fwd"),
        ({"annotations": "fwd.io/ip: x"}, "m.yaml:3: metadata.annotations: fwd.io/ip: 'x' is not"),
        ({"annotations": "fwd.io/ip: 10.0.0.9", "status": "podIP: 10.0.0.8"}, "other addresses"),
        ({"status": "podIP: here"}, "m.yaml:5: status.podIP: 'here' is not an IP address"),
    ],
)
def test_wrong_pods(change, error):
    """What has no meaning here is never ignored."""
    assert error in error_of(pod(**change))


def test_hostnames_and_other_annotations_do_not_matter():
    """Fields without a say in packets may be there."""
    text = pod(annotations="example.com/x: y", spec="hostname: w, volumes: [], dnsPolicy: Default")
    assert len(read(text).pods) == 1


def test_namespace_has_its_name_as_a_label():
    """A namespace's labels, and the one every namespace has."""
    text = "{apiVersion: v1, kind: Namespace, metadata: {name: red, labels: {team: x}}}"
    assert read(text).namespaces["red"].labels == {
        "team": "x",
        "kubernetes.io/metadata.name": "red",
    }
