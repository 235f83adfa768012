"""Clients outside the cluster: NodePort, external and load balancer addresses of a running node.

client 192.168.56.9 -- eth0 --+                     +-- a0 10.244.0.10
                              |       eth0 -- node1 |   (cilium_net, cilium_host 10.244.0.150)
                           br0 (switch)             +-- UDP 8472 --+
                              |                                    |
                              +------ eth0 -- node2 ---------------+-- b0 10.244.2.10

198.51.100.0/24 is routed to node1 by the client. Every pod has a web server on 8080, which names
the pod, and a UDP echo on 5353. Tests share the lab and leave it as they found it.
"""

from __future__ import annotations

import json
import random
import signal
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.netns]

CLIENT, NODE1, NODE2, ROUTER1 = "192.168.56.9", "192.168.56.105", "192.168.56.106", "10.244.0.150"
A0, B0 = "10.244.0.10", "10.244.2.10"
ECHO = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 5353))
while True:
    data, who = sock.recvfrom(65536)
    sock.sendto(who[0].encode() + b" " + data, who)
"""
ASK = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(b"x" * int(sys.argv[3]))
seen, data = sock.recv(65536).split(b" ")
print(seen.decode(), len(data))
"""
SINK = """
import hashlib, socket
server = socket.create_server(("", 8081))
while True:
    client, _ = server.accept()
    digest = hashlib.sha256()
    while data := client.recv(65536):
        digest.update(data)
    client.sendall(digest.hexdigest().encode())
    client.close()
"""
PUT = """
import socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
client.settimeout(20)
client.sendall(open(sys.argv[3], "rb").read())
client.shutdown(socket.SHUT_WR)
print(client.recv(100).decode())
"""
MTU = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
sock.connect((sys.argv[1], int(sys.argv[2])))
sock.send(bytes(1472))
time.sleep(0.5)
print(sock.getsockopt(socket.IPPROTO_IP, 14))  # IP_MTU
"""
MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: local, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.20
  externalTrafficPolicy: Local
  ports: [{port: 80, targetPort: 8080, nodePort: 30085}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: local-1, namespace: default, labels: {kubernetes.io/service-name: local}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints:
  - {addresses: [10.244.0.10], nodeName: node1}
  - {addresses: [10.244.2.10], nodeName: node2}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: default}
spec:
  type: NodePort
  clusterIP: 10.96.0.21
  externalTrafficPolicy: Local
  ports: [{port: 80, targetPort: 8080, nodePort: 30086}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: elsewhere-1, namespace: default, labels: {kubernetes.io/service-name: elsewhere}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints:
  - {addresses: [10.244.2.10], nodeName: node2}
"""


def service(port: int, backend: str, target: int, **fields: Any) -> dict[str, Any]:
    """A NodePort of node1 with one backend, or what ``fields`` make of it."""
    kind = {"name": f"default/p{port}", "frontend": NODE1, "flags": ["node_port", "routable"]}
    return {**kind, "port": port, "backends": [{"ip": backend, "port": target}], **fields}


def external(address: str, backend: str, *flags: str, **fields: Any) -> dict[str, Any]:
    """A service on port 80 of an address that is its own."""
    flags = ("routable", *(flags or ("external_ip",)))
    return service(80, backend, 8080, name=f"default/e{address}", frontend=address,
                   flags=list(flags), **fields)  # fmt: skip


SERVICES = [
    service(30080, A0, 8080),
    service(30081, B0, 8080),
    service(30053, A0, 5353, proto="udp"),
    service(30054, B0, 5353, proto="udp"),
    service(30082, A0, 8081),
    service(30083, B0, 8081),
    service(30087, NODE2, 8099),
    external("198.51.100.10", B0),
    external("198.51.100.11", A0, "load_balancer", "source_range",
             source_ranges=[f"{CLIENT}/32"]),
    external("198.51.100.12", A0, "load_balancer", "source_range",
             source_ranges=["203.0.113.0/24"]),
]  # fmt: skip


def files(directory: Path) -> list[dict[str, Any]]:
    """Two nodes that masquerade and know each other's router; node1 is open to the outside."""
    manifest = directory / "local.yaml"
    manifest.write_text(MANIFEST)
    nodes = two_nodes([pod("node1", 0)], [pod("node2", 0)])
    for data, other in zip(nodes, (2, 0), strict=True):
        data["peers"][0]["router_ip"] = f"10.244.{other}.150"
        data["features"] = {"masquerade": True, "nodeport": True}
        data["manifests"] = [str(manifest)]
    nodes[0]["services"] = SERVICES
    return nodes


class ServedNet(Net):
    """A net whose pods serve files."""

    def __init__(self, lab: Lab) -> None:
        """As its parent."""
        super().__init__(lab)
        self.served: dict[str, Path] = {}
        """Namespace to the folder its web server shows."""


def build(lab: Lab, directory: Path) -> ServedNet:
    """The drawing above, with servers and daemons running."""
    net = ServedNet(lab)
    nodes = [net.add_node(data) for data in files(directory)]
    lab.namespace("switch")
    lab.namespace("client")
    lab.ip("-n", lab.name("switch"), "link", "add", "br0", "type", "bridge")
    lab.ip("-n", lab.name("switch"), "link", "set", "br0", "up")
    for short, address in (("node1", NODE1), ("node2", NODE2), ("client", CLIENT)):
        lab.ip("link", "add", "eth0", "netns", lab.name(short), "type", "veth",
               "peer", "name", short, "netns", lab.name("switch"))  # fmt: skip
        lab.ip("-n", lab.name("switch"), "link", "set", short, "master", "br0", "up")
        lab.ip("-n", lab.name(short), "addr", "add", f"{address}/24", "dev", "eth0")
        lab.ip("-n", lab.name(short), "link", "set", "eth0", "up")
    lab.ip("-n", lab.name("client"), "route", "add", "198.51.100.0/24", "via", NODE1)
    for node in nodes:
        net.start(node)
    for short, port in (("a0", 8080), ("b0", 8080), ("node2", 8099)):
        folder = net.served[short] = directory / short
        folder.mkdir()
        (folder / "index.html").write_text(short)
        lab.spawn(short, sys.executable, "-u", "-m", "http.server", "--directory",
                  str(folder), str(port), log=f"http-{short}.log")  # fmt: skip
        lab.spawn(short, sys.executable, "-c", ECHO, log=f"echo-{short}.log")
        lab.spawn(short, sys.executable, "-c", SINK, log=f"sink-{short}.log")
        ready = f":{port} "
        lab.wait_for(f"{short}'s server", lambda: ready in lab.run(short, "ss", "-ltn").stdout)  # noqa: B023 - at once
    return net


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNet]:
    """One lab for all tests; in the end packets in = packets out + drops + punts on both nodes."""
    with Lab(PREFIX) as lab:
        net = build(lab, tmp_path_factory.mktemp("nodeport"))
        yield net
        for node in net.nodes.values():
            assert balance(net, node) == 0
            assert net.complaints(node) == []
            assert net.stop(node)
            assert steering(net, node) == ""
        assert "cilium_net" not in lab.run("node1", "ip", "link").stdout


def balance(net: Net, node: Any) -> int:
    """Packets that came in and of which nobody knows where they went."""
    rows = net.rows(node, "metrics")
    drops = {int(reason) for reason in Drop}
    received = sum(row["packets"] for row in rows if row["code"] == 101)
    left = {100, 102, 103} | drops
    return received - sum(row["packets"] for row in rows if row["code"] in left)


def steering(net: Net, node: Any) -> str:
    """What a node's nftables hold of ours for traffic from outside."""
    rules = net.lab.run(node.name, "nft", "list", "ruleset").stdout
    return rules[rules.index("fwd_outside") :] if "fwd_outside" in rules else ""


def fetch(net: Net, where: str, *options: str) -> str:
    """What the client's curl gets; "" = nothing."""
    command = ("curl", "-s", "-m", "4", *options, f"http://{where}/")
    return net.lab.run("client", *command, check=False).stdout


def closed(net: Net, where: str) -> bool:
    """Whether the host itself answers for a port, and says that nobody listens."""
    command = ("curl", "-s", "-m", "4", f"http://{where}/")
    return net.lab.run("client", *command, check=False).returncode == 7


def echo(net: Net, address: str, port: int, size: int) -> str:
    """Whom the echo took the client for, and how much came back."""
    command = (sys.executable, "-c", ASK, address, str(port), str(size))
    return net.lab.run("client", *command, check=False).stdout.strip()


def test_a_nodeport_leads_to_a_local_pod_that_sees_the_client(net: Net) -> None:
    """The answer leaves under the node's address although the node masquerades its pods."""
    assert fetch(net, f"{NODE1}:30080") == "a0"
    assert f"{CLIENT} - -" in net.lab.log("http-a0.log")


def test_a_nodeport_leads_to_a_remote_pod_under_the_routers_address(net: Net) -> None:
    """Through the tunnel and back; no conntrack of either host has seen the client's flow."""
    assert fetch(net, f"{NODE1}:30081") == "b0"
    assert f"{ROUTER1} - -" in net.lab.log("http-b0.log")
    assert CLIENT not in net.lab.log("http-b0.log")


@pytest.mark.parametrize(("port", "seen"), [(30053, CLIENT), (30054, ROUTER1)])
@pytest.mark.parametrize("size", [100, 8000])
def test_udp_comes_back_whole(net: Net, port: int, seen: str, size: int) -> None:
    """Local and remote, in one frame and in fragments: later ones follow their first."""
    assert echo(net, NODE1, port, size) == f"{seen} {size}"


def test_large_transfers_arrive_whole(net: ServedNet, tmp_path: Path) -> None:
    """4 MB each way, to the local and the remote pod: what was merged is cut again."""
    data = random.Random(1).randbytes(4 << 20)
    (tmp_path / "data").write_bytes(data)
    for port in (30082, 30083):
        command = (sys.executable, "-c", PUT, NODE1, str(port), str(tmp_path / "data"))
        assert net.lab.run("client", *command).stdout.strip() == sha256(data).hexdigest()
    for short, port in (("a0", 30080), ("b0", 30081)):
        net.served[short].joinpath("data").write_bytes(data)
        got = tmp_path / short
        net.lab.run("client", "curl", "-sSf", "-m", "30", "-o", str(got),
                    f"http://{NODE1}:{port}/data")  # fmt: skip
        assert got.read_bytes() == data


def test_a_client_learns_the_tunnels_mtu(net: Net) -> None:
    """The error about a datagram that may not be cut reaches it; to a local pod there is none."""
    command = (sys.executable, "-c", MTU, NODE1)
    assert net.lab.run("client", *command, "30053").stdout.strip() == "1500"
    assert net.lab.run("client", *command, "30054").stdout.strip() == "1450"
    net.lab.run("client", "ip", "route", "flush", "cache")


def test_external_addresses_lead_to_pods(net: Net) -> None:
    """An address that no device has, and one that only some may use."""
    assert fetch(net, "198.51.100.10") == "b0"
    assert fetch(net, "198.51.100.11") == "a0"


def test_a_client_out_of_range_is_refused(net: Net) -> None:
    """Counted by its reason, and nothing comes back."""
    node = net.nodes["node1"]
    before = net.drops(node, Drop.DENIED_BY_LB_SRC_RANGE_CHECK)
    assert fetch(net, "198.51.100.12", "-m", "1") == ""
    assert net.drops(node, Drop.DENIED_BY_LB_SRC_RANGE_CHECK) > before


def test_policy_local_keeps_to_the_node(net: Net) -> None:
    """Each node answers with its own pod, which sees the client; without one it is a drop."""
    assert fetch(net, f"{NODE1}:30085") == "a0"
    assert fetch(net, f"{NODE2}:30085") == "b0"
    assert f"{CLIENT} - -" in net.lab.log("http-b0.log")
    node = net.nodes["node1"]
    before = net.drops(node, Drop.SERVICE_BACKEND_NOT_FOUND)
    assert fetch(net, f"{NODE1}:30086", "-m", "1") == ""
    assert net.drops(node, Drop.SERVICE_BACKEND_NOT_FOUND) > before
    assert fetch(net, f"{NODE2}:30086") == "b0"


def test_a_backend_that_is_no_pod_answers_through_the_node(net: Net) -> None:
    """node2's own server, natively and under node1's address; its answers are steered, too."""
    assert fetch(net, f"{NODE1}:30087") == "node2"
    assert f"{NODE1} - -" in net.lab.log("http-node2.log")
    for other in ("node1", "a0"):  # their own answers come from there, too, and are handed back
        done = net.lab.run(other, "curl", "-s", "-m", "4", f"http://{NODE2}:8099/")
        assert done.stdout == "node2"


def test_the_nodes_other_ports_stay_the_hosts(net: Net) -> None:
    """Ping, a server of the host, a closed port; large answers of the node's own arrive, too."""
    assert net.lab.run("client", "ping", "-c", "1", "-W", "2", "-s", "4000", NODE1).returncode == 0
    web = net.lab.spawn("node1", sys.executable, "-m", "http.server", "8098", log="own.log")
    command = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{NODE1}:8098/")
    net.lab.wait_for("it", lambda: net.lab.run("client", *command, check=False).stdout == "200")
    net.lab.end([web.pid])
    assert closed(net, f"{NODE1}:30099")


def test_status_and_services_tell_what_is_open(net: Net) -> None:
    """Device, uplink and frontends: those of the node file and of the manifest."""
    node = net.nodes["node1"]
    status = json.loads(net.fwd(node, "status", "-o", "json"))["outside"]
    assert status == {"device": "cilium_net", "uplink": "eth0", "frontends": len(SERVICES) + 2}
    assert f"{len(SERVICES) + 2} frontends, from eth0 to cilium_net" in net.fwd(node, "status")
    assert "node_port" in net.fwd(node, "service", "get", "default/p30080")


def quoting(port: int) -> str:
    """A program that sends an ICMP error about what came from a port of node1."""
    return (
        "from scapy.all import *\n"
        f"flow = IP(src='{NODE1}', dst='{CLIENT}') / TCP(sport={port}, dport=50000)\n"
        f"send(IP(dst='{NODE1}') / ICMP(type=3, code=1) / flow, verbose=False)\n"
    )


def test_errors_about_a_clients_flow_are_the_datapaths(net: Net) -> None:
    """ICMP errors that quote a frontend are steered, those about the host's own flows are not."""

    def steered(port: int) -> int:
        path = "/sys/class/net/cilium_net/statistics/tx_packets"
        before = int(net.lab.run("node1", "cat", path).stdout)
        net.lab.run("client", sys.executable, "-c", quoting(port))
        return int(net.lab.run("node1", "cat", path).stdout) - before

    assert steered(30080) == 1
    assert steered(30099) == 0


def test_hosts_that_filter_by_reverse_path_or_by_firewall(net: Net) -> None:
    """rp_filter 2 is no trouble; a forward policy of drop must accept cilium_net."""
    path = "/proc/sys/net/ipv4/conf/all/rp_filter"
    net.lab.run("node1", "sh", "-c", f"echo 2 > {path}")
    net.lab.run("node1", "ip", "route", "add", "default", "via", NODE2)  # as every node has one
    assert fetch(net, f"{NODE1}:30080") == "a0"
    assert fetch(net, "198.51.100.10") == "b0"
    net.lab.run("node1", "ip", "route", "del", "default")
    net.lab.run("node1", "sh", "-c", f"echo 0 > {path}")
    chain = "{ type filter hook forward priority 0; policy drop; }"
    for rule in ("add table ip strict", f"add chain ip strict forward {chain}"):
        net.lab.run("node1", "nft", rule)
    assert fetch(net, f"{NODE1}:30080", "-m", "1") == ""
    net.lab.run("node1", "nft", "add rule ip strict forward iifname cilium_net accept")
    assert fetch(net, f"{NODE1}:30080") == "a0"
    net.lab.run("node1", "nft", "delete table ip strict")


def frontends(net: Net) -> int:
    """How many node1 says it steers; 0 = it has no device for them."""
    status = json.loads(net.fwd(net.nodes["node1"], "status", "-o", "json"))
    return int((status["outside"] or {"frontends": 0})["frontends"])


def switch(net: Net, directory: Path, services: list[dict[str, Any]], **features: bool) -> None:
    """Reload node1 with other services and features, and wait until it has."""
    node = net.nodes["node1"]
    data = files(directory)[0] | {"services": services}
    data["features"] |= features
    before = json.loads(net.fwd(node, "status", "-o", "json"))["revision"]
    net.write(node, data)
    net.reload(node)
    net.lab.wait_for(
        "the reload",
        lambda: json.loads(net.fwd(node, "status", "-o", "json"))["revision"] > before,
    )


def test_reloads_open_and_close_frontends(net: Net, tmp_path: Path) -> None:
    """A service more, then less; then all are closed and opened again. Flows of others go on."""
    switch(net, tmp_path, [*SERVICES, service(30088, B0, 8080)])
    assert frontends(net) == len(SERVICES) + 3
    assert fetch(net, f"{NODE1}:30088") == "b0"
    switch(net, tmp_path, SERVICES)
    assert closed(net, f"{NODE1}:30088")
    switch(net, tmp_path, SERVICES, nodeport=False)
    assert frontends(net) == 0
    assert steering(net, net.nodes["node1"]) == ""
    assert closed(net, f"{NODE1}:30080")
    switch(net, tmp_path, SERVICES, masquerade=False)  # forwarding of all devices goes off
    assert fetch(net, f"{NODE1}:30080") == "a0"
    switch(net, tmp_path, SERVICES)
    assert fetch(net, f"{NODE1}:30081") == "b0"


def test_applied_manifests_open_frontends(net: Net, tmp_path: Path) -> None:
    """By command, as by reload; deleting them closes them. What is not served is a note."""
    text = MANIFEST.replace("30085", "30089").replace("30086", "30090")
    own = f"{{addresses: [{NODE1}], nodeName: node1}}"
    text = text.replace("10.96.0.2", "10.96.0.3").replace("name: local", "name: new")
    text = text.replace("name: elsewhere", "name: host").replace(
        "service-name: local", "service-name: new"
    )
    text = text.replace("service-name: elsewhere", "service-name: host")
    head, _, _ = text.rpartition("  - {")
    (tmp_path / "new.yaml").write_text(f"{head}  - {own}\n")
    node = net.nodes["node1"]
    said = net.fwd(node, "apply", "-f", str(tmp_path / "new.yaml"))
    assert "default/host: the node's own answers do not pass" in said
    assert fetch(net, f"{NODE1}:30089") == "a0"
    net.fwd(node, "delete", "-f", str(tmp_path / "new.yaml"))
    assert closed(net, f"{NODE1}:30089")


def test_a_refused_reload_leaves_everything_open(net: Net, tmp_path: Path) -> None:
    """The tunnel's own port is no frontend, and the error names the line."""
    node = net.nodes["node1"]
    rows = [*SERVICES, service(8472, A0, 5353, proto="udp"), service(30088, B0, 8080)]
    net.write(node, files(tmp_path)[0] | {"services": rows})
    net.reload(node)
    net.lab.wait_for("the refusal", lambda: "is the tunnel's" in net.lab.log(node.log))
    assert frontends(net) == len(SERVICES) + 2
    assert fetch(net, f"{NODE1}:30080") == "a0"
    net.write(node, files(tmp_path)[0])


def test_a_deleted_device_comes_back_with_a_reload(net: Net, tmp_path: Path) -> None:
    """Without it clients get nothing; everything else goes on."""
    net.lab.run("node1", "ip", "link", "del", "cilium_net")
    net.lab.wait_for("the loss", lambda: frontends(net) == 0)
    assert fetch(net, f"{NODE1}:30080", "-m", "1") == ""
    assert net.reaches("a0", B0)
    switch(net, tmp_path, SERVICES)
    assert fetch(net, f"{NODE1}:30080") == "a0"


def test_what_a_killed_daemon_leaves_harms_nobody_and_is_replaced(net: Net, tmp_path: Path) -> None:
    """Frontends lead nowhere, all else is the host's; the next start takes over, or cleans up."""
    node = net.nodes["node1"]
    for features in ({}, {"nodeport": False}):
        data = files(tmp_path)[0]
        data["features"] |= features
        net.write(node, data)
        assert node.daemon is not None
        node.daemon.send_signal(signal.SIGKILL)
        node.daemon.wait()
        assert steering(net, node) != ""
        assert fetch(net, f"{NODE1}:30080", "-m", "1") == ""
        assert net.lab.run("client", "ping", "-c", "1", "-W", "2", NODE1).returncode == 0
        net.start(node)
        assert (steering(net, node) == "") is bool(features)
        if not features:
            assert fetch(net, f"{NODE1}:30080") == "a0"
    switch(net, tmp_path, SERVICES)
    assert fetch(net, f"{NODE1}:30081") == "b0"
