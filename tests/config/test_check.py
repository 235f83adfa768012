"""Contradictions between values of a node file, one case a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwd.config.check import unsteered
from fwd.config.load import ConfigError, parse_node_text

NODE = "{name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}"
POD_A = "{name: a, id: 10, identity: 100, ip: 10.0.0.10, ifname: lxca}"


def world(*, node=NODE, **sections: str) -> str:
    """YAML of a node and its sections, one a line."""
    return f"node: {node}\n" + "".join(f"{key}: {body}\n" for key, body in sections.items())


def pods(row: str) -> str:
    """YAML of pod a and another one."""
    return f"[{POD_A}, {row}]"


CASES = [
    ("node twice", world(node=NODE.replace("10.0.0.0/24", "[10.0.0.0/24, 10.0.0.128/25]")),
     "node.pod_cidr: 10.0.0.128/25 overlaps 10.0.0.0/24 of node n1"),
    ("node and peer", world(peers="[{name: p, ip: 192.0.2.2, pod_cidr: 10.0.0.0/16}]"),
     "peers[0].pod_cidr: 10.0.0.0/16 overlaps 10.0.0.0/24 of node n1"),
    ("peer and peer", world(peers="[{name: p, ip: 192.0.2.2, pod_cidr: 10.1.0.0/24}, "
                                  "{name: q, ip: 192.0.2.3, pod_cidr: 10.1.0.0/24}]"),
     "peers[1].pod_cidr: 10.1.0.0/24 overlaps 10.1.0.0/24 of peer p"),
    ("peer is node", world(peers="[{name: p, ip: 192.0.2.1}]"),
     "peers[0].ip: 192.0.2.1 is the node's already"),
    ("peers share ip", world(peers="[{name: p, ip: 192.0.2.2}, {name: q, ip: 192.0.2.2}]"),
     "peers[1].ip: 192.0.2.2 is peer p's already"),
    ("peer has our router", world(peers="[{name: p, ip: 192.0.2.2, router_ip: 10.0.0.1}]"),
     "peers[0].router_ip: 10.0.0.1 is the router's already"),
    ("peers share name", world(peers="[{name: p, ip: 192.0.2.2}, {name: p, ip: 192.0.2.3}]"),
     "peers[1].name: p stands in peers[0] already"),
    ("peer named as the node", world(peers="[{name: n1, ip: 192.0.2.2}]"),
     "peers[0].name: 'n1' is this node, leave it out or rename it"),
    ("a pod has the loopback address",
     world(node=NODE.replace("}", ", loopback_ip: 10.0.0.10}"), endpoints=f"[{POD_A}]"),
     "endpoints[0].ip: 10.0.0.10 is the loopback's already"),
    ("vni alone", world(peers="[{name: p, ip: 192.0.2.2, vni: 42}]"),
     "peers[0].vni: a fixed VNI carries no identity"),
    ("identity alone", world(peers="[{name: p, ip: 192.0.2.2, identity: 42}]"),
     "peers[0].identity: the VNI carries the identity"),
    ("pods share ip", world(endpoints=pods("{name: b, id: 11, identity: 1, ip: 10.0.0.10}")),
     "endpoints[1].ip: 10.0.0.10 is endpoint a's already"),
    ("pod has the router's", world(endpoints="[{name: b, id: 11, identity: 1, ip: 10.0.0.1}]"),
     "endpoints[0].ip: 10.0.0.1 is the router's already"),
    ("pods share id", world(endpoints=pods("{name: b, id: 10, identity: 1, ip: 10.0.0.11}")),
     "endpoints[1].id: 10 stands in endpoints[0] already"),
    ("pods share name", world(endpoints=pods("{name: a, id: 11, identity: 1, ip: 10.0.0.11}")),
     "endpoints[1].name: a stands in endpoints[0] already"),
    ("pods share device",
     world(endpoints=pods("{name: b, id: 11, identity: 1, ip: 10.0.0.11, ifname: lxca}")),
     "endpoints[1].ifname: lxca stands in endpoints[0] already"),
    ("pod outside", world(endpoints="[{name: b, id: 11, identity: 1, ip: 10.0.1.10}]"),
     "endpoints[0].ip: 10.0.1.10 is outside node.pod_cidr (10.0.0.0/24)"),
    ("pod of another family", world(endpoints='[{name: b, id: 11, identity: 1, ip: "fd00::1"}]'),
     "endpoints[0].ip: fd00::1 is outside node.pod_cidr"),
    ("router outside", world(node=NODE.replace("10.0.0.1}", "10.0.1.1}")),
     "node.router_ip: 10.0.1.1 is outside node.pod_cidr"),
    ("pod named as a port", world(endpoints="[{name: overlay, id: 1, identity: 1, ip: 10.0.0.9}]"),
     "endpoints[0].name: 'overlay' names a port of the node"),
    ("prefix twice", world(ipcache="[{prefix: 10.1.0.0/24, identity: 2}, "
                                   "{prefix: 10.1.0.0/24, identity: 3}]"),
     "ipcache[1].prefix: 10.1.0.0/24 stands in ipcache[0] already"),
    ("wide identity in the tunnel",
     world(ipcache="[{prefix: 10.1.0.1/32, identity: 16777216, tunnel_endpoint: 192.0.2.2}]"),
     "ipcache[0].identity: 16777216 does not fit the 24-bit VNI"),
    ("another identity for a pod here",
     world(endpoints=f"[{POD_A}]", ipcache="[{prefix: 10.0.0.10/32, identity: 300}]"),
     "ipcache[0].identity: 10.0.0.10/32 is endpoint a, whose identity is 100: write"),
    ("another identity for the node", world(ipcache="[{prefix: 192.0.2.1/32, identity: 300}]"),
     "ipcache[0].identity: 192.0.2.1/32 is this node, whose identity is 1: write that, or no row"),
    ("a tunnel to a pod here", world(endpoints=f"[{POD_A}]", peers="[{name: p, ip: 192.0.2.2}]",
     ipcache="[{prefix: 10.0.0.10/32, identity: 100, tunnel_endpoint: 192.0.2.2}]"),
     "ipcache[0].tunnel_endpoint: 10.0.0.10/32 is endpoint a, no tunnel leads here"),
    ("rule of nobody", world(endpoints=f"[{POD_A}]",
                             policy="[{endpoint: b, direction: egress, action: deny}]"),
     "policy[0].endpoint: no endpoint is named 'b'"),
    ("port of any protocol", world(endpoints=f"[{POD_A}]", policy="[{endpoint: a, "
                                   "direction: egress, port: 80, action: deny}]"),
     "policy[0].port: a port needs its protocol"),
    ("port zero", world(endpoints=f"[{POD_A}]", policy="[{endpoint: a, direction: egress, "
                        "proto: udp, port: 0, action: deny}]"),
     "policy[0].port: port 0 cannot be matched"),
    ("ICMP type", world(endpoints=f"[{POD_A}]", policy="[{endpoint: a, direction: egress, "
                        "proto: icmp, port: 256, action: deny}]"),
     "policy[0].port: of icmp this is the type"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "error"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_contradictions_are_refused(text, error):
    """Each contradiction is refused at the row that makes it."""
    with pytest.raises(ConfigError) as caught:
        parse_node_text(text, Path("w.yaml"))
    assert str(caught.value).split(": ", 1)[1].startswith(error)


@pytest.mark.parametrize(
    "text",
    [
        world(ipcache="[{prefix: 10.1.0.1/32, identity: 16777216}]"),
        world(ipcache="[{prefix: 10.1.0.1/32, identity: 16777216, tunnel_endpoint: 192.0.2.1}]"),
        world(peers="[{name: p, ip: 192.0.2.2, vni: 0, identity: 2}]"),
        world(endpoints=f"[{POD_A}]", policy="[{endpoint: a, direction: ingress, proto: icmp, "
              "port: 0, action: allow}]"),
    ],
)  # fmt: skip
def test_neighbours_of_contradictions_are_taken(text):
    """What lies just inside the rules loads."""
    assert parse_node_text(text, Path("w.yaml")).node.name == "n1"


def test_what_only_replay_and_trace_do_is_said_to_who_runs_a_daemon() -> None:
    """IPv6 frontends are not steered, and the node's own answers do not come by."""
    rows = (
        "  - {name: six, frontend: 2001:db8::1, port: 80, flags: [external_ip, routable]}\n"
        "  - {name: near, frontend: 192.0.2.1, port: 30080, flags: [node_port, routable], "
        "backends: [{ip: 10.0.0.9, port: 80}]}\n"
        "  - {name: own, frontend: 192.0.2.1, port: 30081, flags: [node_port, routable], "
        "backends: [{ip: 192.0.2.1, port: 80}]}\n"
    )
    text = "node: {name: n, ip: 192.0.2.1}\nfeatures: {nodeport: true}\nservices:\n" + rows
    six, own = unsteered(parse_node_text(text, Path("w.yaml")))
    assert six.startswith("w.yaml:2: features.nodeport: six: a running daemon is given IPv4")
    assert own.startswith("w.yaml:2: features.nodeport: own: the node's own answers")
    assert unsteered(parse_node_text(text.replace("true", "false"), Path("w.yaml"))) == []


def test_a_tunnel_to_no_peer_is_warned_of():
    """What is sent there gets no answer, unless nobody checks."""
    row = "[{prefix: 10.1.0.1/32, identity: 300, tunnel_endpoint: 192.0.2.9}]"
    (told,) = parse_node_text(world(ipcache=row), Path("w.yaml")).warnings
    assert told.startswith("w.yaml:2: ipcache[0].tunnel_endpoint: 192.0.2.9 is no peer, what com")
    for more in ({"tunnel": "{verify: {peer: false}}"}, {"peers": "[{name: p, ip: 192.0.2.9}]"}):
        assert parse_node_text(world(ipcache=row, **more), Path("w.yaml")).warnings == ()


def test_the_tunnels_port_is_no_frontend() -> None:
    """Only where it would be taken from the tunnel: udp, from outside, on the node's address."""
    row = "{name: s, frontend: 192.0.2.1, port: 8472, proto: udp, flags: [node_port, routable]}"
    text = f"node: {{name: n, ip: 192.0.2.1}}\nservices: [{row}]\nfeatures: {{nodeport: true}}\n"
    with pytest.raises(ConfigError, match=r"w\.yaml:2: .*8472/udp of 192\.0\.2\.1 is the tunnel's"):
        parse_node_text(text, Path("w.yaml"))
    others = (
        ("true", "false"),
        ("udp", "tcp"),
        ("8472", "8473"),
        ("end: 192.0.2.1", "end: 192.0.2.9"),
    )
    for old, new in others:
        parse_node_text(text.replace(old, new), Path("w.yaml"))
