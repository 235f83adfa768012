"""v1 Pod and Namespace. A pod's addresses and namespace may come from annotations.

``status.podIP(s)`` or the annotation ``fwd.io/ip`` (a comma separated list) say its addresses,
``fwd.io/netns`` its network namespace; the node file's endpoint of the same name can say both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwd.manifest.meta import OBJECT_KEYS, read_meta
from fwd.model.address import parse_address
from fwd.model.manifest import Namespace, Pod
from fwd.model.selector import METADATA_NAME, identity_labels

if TYPE_CHECKING:
    from fwd.manifest.meta import Meta
    from fwd.manifest.reader import Field
    from fwd.model.rows import Address

__all__ = ["read_namespace", "read_pod"]

ANNOTATION_IP: Final = "fwd.io/ip"
ANNOTATION_NETNS: Final = "fwd.io/netns"
_ANNOTATIONS = (ANNOTATION_IP, ANNOTATION_NETNS)
_SPEC_IGNORED = (
    "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy",
    "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostPID", "hostUsers",
    "hostname", "imagePullSecrets", "initContainers", "nodeSelector", "os", "overhead",
    "preemptionPolicy", "priority", "priorityClassName", "readinessGates", "resourceClaims",
    "resources", "restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates",
    "securityContext", "serviceAccount", "setHostnameAsFQDN", "shareProcessNamespace", "subdomain",
    "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes",
)  # fmt: skip
_STATUS_IGNORED = (
    "conditions", "containerStatuses", "ephemeralContainerStatuses", "hostIP", "hostIPs",
    "initContainerStatuses", "message", "nominatedNodeName", "observedGeneration", "phase",
    "qosClass", "reason", "resize", "resourceClaimStatuses", "startTime",
)  # fmt: skip
_CONTAINER_IGNORED = (
    "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe",
    "name", "readinessProbe", "resizePolicy", "resources", "restartPolicy", "securityContext",
    "startupProbe", "stdin", "stdinOnce", "terminationMessagePath", "terminationMessagePolicy",
    "tty", "volumeDevices", "volumeMounts", "workingDir",
)  # fmt: skip


def read_namespace(top: Field) -> Namespace:
    """Read a v1 Namespace: only its labels matter."""
    document = top.mapping(OBJECT_KEYS, ("spec", "status"))
    meta = read_meta(document, top, namespaced=False)
    return Namespace(meta.origin, dict(meta.labels) | {METADATA_NAME: meta.name})


def read_pod(top: Field) -> Pod:
    """Read a v1 Pod: labels, node, addresses."""
    document = top.mapping((*OBJECT_KEYS, "spec", "status"))
    meta = read_meta(document, top)
    if "spec" not in document:
        top.fail("spec: missing, add it")
    spec = document["spec"].mapping(
        ("nodeName", "serviceAccountName", "hostNetwork", "containers"), _SPEC_IGNORED
    )
    if "hostNetwork" in spec and spec["hostNetwork"].boolean():
        spec["hostNetwork"].fail("a pod in the host's network is the node itself, leave it out")
    if "containers" in spec:
        for container in spec["containers"].items():
            _check_container(container)
    account = spec["serviceAccountName"].text() if "serviceAccountName" in spec else "default"
    _check_annotations(meta)
    return Pod(
        origin=meta.origin,
        namespace=meta.namespace,
        labels=identity_labels(meta.namespace, meta.labels, account),
        node_name=spec["nodeName"].text() if "nodeName" in spec else None,
        ips=_addresses(meta, document.get("status")),
        netns=meta.annotations.get(ANNOTATION_NETNS),
    )


def _check_container(field: Field) -> None:
    data = field.mapping(("ports",), _CONTAINER_IGNORED)
    for port in data["ports"].items() if "ports" in data else ():
        port.mapping(
            ("containerPort",), ("name", "protocol"),
            {"hostPort": "host ports", "hostIP": "host ports"},
        )  # fmt: skip


def _check_annotations(meta: Meta) -> None:
    """Other people's annotations are theirs; ours have to be known."""
    for key in meta.annotations:
        if key.startswith("fwd.io/") and key not in _ANNOTATIONS and meta.annotations_field:
            meta.annotations_field.fail(f"{key}: unknown, here: {', '.join(_ANNOTATIONS)}")


def _addresses(meta: Meta, status: Field | None) -> tuple[Address, ...]:
    written = _annotated(meta)
    if status is None:
        return written
    data = status.mapping(("podIP", "podIPs"), _STATUS_IGNORED)
    found: dict[Address, None] = {}
    if "podIP" in data:
        found[data["podIP"].address()] = None
    for item in data["podIPs"].items() if "podIPs" in data else ():
        entry = item.mapping(("ip",))
        if "ip" not in entry:
            item.fail("ip: missing, add it")
        found[entry["ip"].address()] = None
    if written and found and set(written) != set(found):
        status.fail(f"the annotation {ANNOTATION_IP} has other addresses, remove one of the two")
    return tuple(found) or written


def _annotated(meta: Meta) -> tuple[Address, ...]:
    if ANNOTATION_IP not in meta.annotations or meta.annotations_field is None:
        return ()
    try:
        parts = meta.annotations[ANNOTATION_IP].split(",")
        return tuple(dict.fromkeys(parse_address(part.strip()) for part in parts))
    except ValueError as error:
        meta.annotations_field.fail(f"{ANNOTATION_IP}: {error}")
