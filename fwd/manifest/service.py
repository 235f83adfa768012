"""v1 Service and discovery.k8s.io/v1 EndpointSlice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fwd.manifest.meta import OBJECT_KEYS, PORT_MAX, read_meta
from fwd.model.manifest import Service, ServicePort, Slice, SliceEndpoint
from fwd.model.selector import NAMESPACE_LABEL, Requirement, Selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwd.manifest.reader import Field
    from fwd.model.manifest import BackendState
    from fwd.model.rows import Address

__all__ = ["read_service", "read_slice"]

_SPEC = (
    "type", "clusterIP", "clusterIPs", "ports", "selector", "sessionAffinity",
    "sessionAffinityConfig", "internalTrafficPolicy", "externalTrafficPolicy", "externalIPs",
    "loadBalancerIP", "loadBalancerSourceRanges",
)  # fmt: skip
_SPEC_IGNORED = (
    "ipFamilies", "ipFamilyPolicy", "allocateLoadBalancerNodePorts", "healthCheckNodePort",
    "loadBalancerClass",
)  # fmt: skip
_SPEC_REFUSED = {
    "externalName": "names of other services",
    "publishNotReadyAddresses": "traffic to backends that are not ready",
    "trafficDistribution": "topology",
}
_ANNOTATIONS_REFUSED = ("service.cilium.io/", "io.cilium/")
"""Cilium's own: they would change what the service does."""
_SERVICE_LABEL = "kubernetes.io/service-name"
AFFINITY_DEFAULT_S = 10800
AFFINITY_MAX_S = 86400
_PROTO: dict[str, Literal["tcp", "udp", "sctp"]] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


def read_service(top: Field) -> Service:
    """Read a v1 Service of type ClusterIP, NodePort or LoadBalancer."""
    document = top.mapping((*OBJECT_KEYS, "spec", "status"))
    meta = read_meta(document, top)
    if "spec" not in document:
        top.fail("spec: missing, add it")
    for key in meta.annotations:
        if key.startswith(_ANNOTATIONS_REFUSED) and meta.annotations_field:
            meta.annotations_field.fail(f"{key}: not implemented, remove it")
    spec = document["spec"].mapping(_SPEC, _SPEC_IGNORED, _SPEC_REFUSED)
    kind: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    if "type" in spec:
        kind = spec["type"].choice("ClusterIP", "NodePort", "LoadBalancer")
    ports = tuple(_port(item, kind) for item in (spec["ports"].items() if "ports" in spec else ()))
    _check_ports(spec, ports)
    return Service(
        origin=meta.origin,
        namespace=meta.namespace,
        type=kind,
        cluster_ips=_cluster_ips(document["spec"], spec),
        ports=ports,
        selector=_selector(spec, meta.namespace),
        affinity_timeout_s=_affinity(spec),
        internal_local=_is_local(spec, "internalTrafficPolicy"),
        external_local=_is_local(spec, "externalTrafficPolicy"),
        external_ips=spec["externalIPs"].addresses() if "externalIPs" in spec else (),
        balancer_ips=_balancer_ips(spec, document.get("status"), kind),
        source_ranges=tuple(
            item.network()
            for item in (
                spec["loadBalancerSourceRanges"].items()
                if "loadBalancerSourceRanges" in spec
                else ()
            )
        ),
    )


def _selector(spec: Mapping[str, Field], namespace: str) -> Selector | None:
    labels = spec["selector"].labels() if "selector" in spec else {}
    if not labels:
        return None
    found = [Requirement(key, "In", (value,)) for key, value in labels.items()]
    return Selector((*found, Requirement(NAMESPACE_LABEL, "In", (namespace,))))


def _proto(data: Mapping[str, Field]) -> Literal["tcp", "udp", "sctp"]:
    return _PROTO[data["protocol"].choice("TCP", "UDP", "SCTP")] if "protocol" in data else "tcp"


def _port(field: Field, kind: str) -> ServicePort:
    data = field.mapping(("name", "protocol", "port", "targetPort", "nodePort"), ("appProtocol",))
    if "port" not in data:
        field.fail("port: missing, add it")
    port = data["port"].number(1, PORT_MAX)
    target: int | str = port
    if "targetPort" in data:
        one = data["targetPort"]
        target = one.number(1, PORT_MAX) if one.is_number else one.text()
    node_port = None
    if "nodePort" in data:
        if kind == "ClusterIP":
            data["nodePort"].fail("a ClusterIP service has none, set type to NodePort")
        node_port = data["nodePort"].number(1, PORT_MAX)
    elif kind == "NodePort":
        field.fail("nodePort: missing, nothing allocates one here: write the number")
    name = data["name"].text() if "name" in data else ""
    return ServicePort(name, _proto(data), port, target, node_port, field.line)


def _check_ports(spec: Mapping[str, Field], ports: tuple[ServicePort, ...]) -> None:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for index, port in enumerate(ports):
        field = spec["ports"].items()[index]
        if port.name in names:
            field.fail("every port of several needs a name of its own, add or change it")
        if (port.port, port.proto) in numbers:
            field.fail(f"port {port.port}/{port.proto} stands here already, write it once")
        names.add(port.name)
        numbers.add((port.port, port.proto))


def _cluster_ips(field: Field, spec: Mapping[str, Field]) -> tuple[Address, ...]:
    texts = [spec["clusterIP"]] if "clusterIP" in spec else []
    texts += spec["clusterIPs"].items() if "clusterIPs" in spec else []
    if not texts:
        field.fail("clusterIP: missing, nothing allocates one here: write an address or None")
    headless = [one for one in texts if one.text() == "None"]
    if headless and len(headless) < len(texts):
        headless[0].fail("None and an address contradict each other, remove one")
    if headless:
        return ()
    found = tuple(dict.fromkeys(one.address() for one in texts))
    listed = spec["clusterIPs"].items() if "clusterIPs" in spec else []
    if "clusterIP" in spec and listed and listed[0].address() != found[0]:
        listed[0].fail(f"the first one is clusterIP, write {found[0]} or remove clusterIP")
    if len({one.version for one in found}) < len(found):
        spec["clusterIPs"].fail("two addresses of one family, keep one of each")
    return found


def _affinity(spec: Mapping[str, Field]) -> int:
    """Return the affinity's timeout in seconds, 0 = none."""
    kind = "None"
    if "sessionAffinity" in spec:
        kind = spec["sessionAffinity"].choice("None", "ClientIP")
    timeout = AFFINITY_DEFAULT_S
    if "sessionAffinityConfig" in spec:
        field = spec["sessionAffinityConfig"]
        if kind == "None":
            field.fail("sessionAffinity is None, set it to ClientIP or remove this")
        config = field.mapping(("clientIP",))
        client = config["clientIP"].mapping(("timeoutSeconds",)) if "clientIP" in config else {}
        if "timeoutSeconds" in client:
            timeout = client["timeoutSeconds"].number(1, AFFINITY_MAX_S)
    return timeout if kind == "ClientIP" else 0


def _is_local(spec: Mapping[str, Field], key: str) -> bool:
    return key in spec and spec[key].choice("Cluster", "Local") == "Local"


def _balancer_ips(
    spec: Mapping[str, Field], status: Field | None, kind: str
) -> tuple[Address, ...]:
    found: dict[Address, None] = {}
    if "loadBalancerIP" in spec:
        found[spec["loadBalancerIP"].address()] = None
    data = status.mapping(("loadBalancer",), ("conditions",)) if status else {}
    balancer = data["loadBalancer"].mapping(("ingress",)) if "loadBalancer" in data else {}
    for item in balancer["ingress"].items() if "ingress" in balancer else ():
        entry = item.mapping(("ip",), ("ipMode", "ports"), {"hostname": "names of load balancers"})
        if "ip" in entry:
            found[entry["ip"].address()] = None
    if found and kind != "LoadBalancer":
        where = status or spec["loadBalancerIP"]
        where.fail(f"a {kind} service has no load balancer, set type to LoadBalancer")
    return tuple(found)


# ---- slices ----


def read_slice(top: Field) -> Slice:
    """Read an EndpointSlice; its label ``kubernetes.io/service-name`` says whose it is."""
    document = top.mapping((*OBJECT_KEYS, "addressType", "endpoints", "ports"))
    meta = read_meta(document, top)
    service = meta.labels.get(_SERVICE_LABEL)
    if service is None:
        top.fail(f"metadata.labels: {_SERVICE_LABEL} is missing, it names the service")
    version = 4
    if "addressType" in document:
        version = 6 if document["addressType"].choice("IPv4", "IPv6") == "IPv6" else 4
    ports: dict[tuple[str, str], int] = {}
    for item in document["ports"].items() if "ports" in document else ():
        data = item.mapping(("name", "protocol", "port"), ("appProtocol",))
        if "port" not in data:
            item.fail("port: missing, add it")
        key = (data["name"].text() if "name" in data else "", _proto(data))
        if key in ports:
            item.fail("two ports have this name and protocol, give each its own name")
        ports[key] = data["port"].number(1, PORT_MAX)
    return Slice(
        origin=meta.origin,
        service=f"{meta.namespace}/{service}",
        ports=ports,
        endpoints=tuple(
            _slice_endpoint(item, version)
            for item in (document["endpoints"].items() if "endpoints" in document else ())
        ),
    )


def _slice_endpoint(field: Field, version: int) -> SliceEndpoint:
    keys = ("addresses", "conditions", "nodeName")
    data = field.mapping(keys, ("hostname", "targetRef", "zone", "hints", "deprecatedTopology"))
    if "addresses" not in data:
        field.fail("addresses: missing, add at least one")
    addresses = data["addresses"].addresses()
    for address in addresses:
        if address.version != version:
            data["addresses"].fail(f"{address} is not of addressType IPv{version}, correct one")
    return SliceEndpoint(
        addresses=addresses,
        state=_state(data.get("conditions")),
        node_name=data["nodeName"].text() if "nodeName" in data else None,
    )


def _state(field: Field | None) -> BackendState | None:
    """Return what the three conditions mean; ``ready`` and ``serving`` are true when left out."""
    data = field.mapping(("ready", "serving", "terminating")) if field else {}
    terminating = "terminating" in data and data["terminating"].boolean()
    ready = "ready" not in data or data["ready"].boolean()
    serving = data["serving"].boolean() if "serving" in data else ready or terminating
    if terminating:
        return "terminating" if serving else None
    return "active" if ready else None
