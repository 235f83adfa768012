"""The node's own stack and its pods, and the world behind it.

world 203.0.113.9, 2001:db8:113::9 -- veth -- eth1 203.0.113.1, 2001:db8:113::1
                             node1 (cilium_host 10.244.0.150) -- TAP -- a0 10.244.0.10
                             eth0 192.168.56.105
                                 ||  UDP 8472
node2 (cilium_host 10.244.2.150) -- TAP -- b0 10.244.2.10
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fwd.api.client import Client
from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.programs import UDP_ASK, UDP_ECHO, python
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

A0, B0, ROUTER1 = "10.244.0.10", "10.244.2.10", "10.244.0.150"
NODE1, NODE2, WORLD = "192.168.56.105", "192.168.56.106", "203.0.113.9"
NODE6 = {"node1": "2001:db8:113::1", "node2": "2001:db8:114::1"}
WORLD6 = "2001:db8:113::9"
WEB, DNS, OWN, EMPTY = (f"10.96.0.{last}" for last in (10, 11, 12, 13))
WEB6, OWN6 = "fd00:96::10", "fd00:96::12"
FORWARD = ("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")


def files() -> list[dict[str, Any]]:
    """Two nodes of both families that masquerade and know each other's router."""
    nodes = two_nodes([pod("node1", 0)], [pod("node2", 0)])
    for data, own, other in zip(nodes, (0, 2), (2, 0), strict=True):
        node, (peer,), (endpoint,) = data["node"], data["peers"], data["endpoints"]
        node["pod_cidr"] = [node["pod_cidr"], f"fd00:{own}::/64"]
        node["router_ip"] = [node["router_ip"], f"fd00:{own}::150"]
        peer["pod_cidr"] = [peer["pod_cidr"], f"fd00:{other}::/64"]
        peer["router_ip"] = [f"10.244.{other}.150", f"fd00:{other}::150"]
        endpoint["ip"] = [endpoint["ip"], f"fd00:{own}::10"]
        data["ipcache"].append({**data["ipcache"][0], "prefix": f"fd00:{other}::10/128"})
        data["features"] = {"masquerade": True}
        node["ip6"] = NODE6[node["name"]]
    return nodes


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The drawing above; the world has no route to any pod."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files()]
        net.wire(*nodes)
        lab.namespace("world")
        lab.wire([("node1", "203.0.113.1/24"), ("world", f"{WORLD}/24")], ifname="eth1")
        for short, address, device in (
            ("node1", NODE6["node1"], "eth1"), ("node2", NODE6["node2"], "eth0"),
            ("world", WORLD6, "eth1"),
        ):  # fmt: skip
            lab.run(short, "ip", "addr", "add", f"{address}/64", "dev", device, "nodad")
        for node in nodes:
            net.start(node)
        yield net


def serve(net: Net, short: str, port: int, bind: str = "0.0.0.0") -> int:
    """A web server in a namespace; its pid."""
    web = net.lab.spawn(
        short, sys.executable, "-m", "http.server", "--bind", bind, str(port),
        log=f"http-{short}.log",
    )  # fmt: skip
    net.lab.wait_for("it", lambda: f":{port} " in net.lab.run(short, "ss", "-ltn").stdout)
    return web.pid


def fetch(net: Net, short: str, url: str) -> str:
    """The HTTP status curl sees."""
    command = ("curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url)
    return net.lab.run(short, *command, check=False).stdout


def test_the_host_has_the_router_address_and_routes_to_all_pods(net):
    """cilium_host: address /32, the node's MAC, no ARP, the pods' MTU, both pod CIDRs."""
    (link,) = json.loads(
        net.lab.run("node1", "ip", "-4", "-j", "addr", "show", "cilium_host").stdout
    )
    assert (link["mtu"], "NOARP" in link["flags"]) == (1450, True)
    assert [(a["local"], a["prefixlen"]) for a in link["addr_info"]] == [(ROUTER1, 32)]
    routes = json.loads(net.lab.run("node1", "ip", "-j", "route").stdout)
    ours = {r["dst"]: r.get("prefsrc") for r in routes if r["dev"] == "cilium_host"}
    assert ours == {"10.244.0.0/24": ROUTER1, "10.244.2.0/24": ROUTER1}


def test_one_send_carries_each_super_packet(net):
    """Pod and host may make none that split into more than one UDP datagram holds."""
    for short, device in (("a0", "eth0"), ("node1", "cilium_host")):
        shown = net.lab.run(short, "ip", "-d", "-j", "link", "show", device).stdout
        (size,) = [one["gso_max_size"] for one in json.loads(shown)]
        packets = (size - 54) // (1450 - 40)  # each full one is a frame of 1464 behind 8 of VXLAN
        assert (packets + 1) * (1464 + 8) > 65507 >= packets * (1464 + 8), device
        assert size == 54 + packets * (1450 - 40), device


def test_host_and_local_pod_ping_each_other(net):
    """A pod reaches the node's address and the router, the node reaches its pod, one hop away."""
    assert net.reaches("a0", NODE1)
    assert net.reaches("a0", ROUTER1)
    assert "ttl=63" in net.ping("node1", A0).stdout


def test_tcp_between_host_and_local_pod(net):
    """Both ways, through the node's own address and through the router's."""
    web = [serve(net, "node1", 8001), serve(net, "a0", 8002)]
    assert fetch(net, "a0", f"http://{NODE1}:8001/") == "200"
    assert fetch(net, "a0", f"http://{ROUTER1}:8001/") == "200"
    assert fetch(net, "node1", f"http://{A0}:8002/") == "200"
    net.lab.end(web)


def test_host_reaches_a_remote_pod_as_remote_node(net):
    """The other node takes it as identity 6 from the peer's router, and answers."""
    assert net.reaches("node1", B0)
    web = serve(net, "b0", 8003)
    assert fetch(net, "node1", f"http://{B0}:8003/") == "200"
    net.lab.end([web])
    rows = net.rows(net.nodes["node2"], "ct")
    assert 6 in {row["src_identity"] for row in rows if row["direction"] == "IN"}


def service(name: str, address: str, targets: list[str], target: int, proto: str = "TCP") -> Any:
    """A Service of port 80 and its EndpointSlice."""
    port = {"port": 80, "targetPort": target, "protocol": proto}
    family = "IPv6" if ":" in address else "IPv4"
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
         "spec": {"clusterIP": address, "ports": [port]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
         "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
         "ports": [{"port": target, "protocol": proto}],
         "endpoints": [{"addresses": [one]} for one in targets]},
    ]  # fmt: skip


def host_routes(net: Net) -> set[str]:
    """Where cilium_host of node1 leads to beside the pods."""
    shown = [net.lab.run("node1", "ip", family, "-j", "route", "show", "dev", "cilium_host").stdout
             for family in ("-4", "-6")]  # fmt: skip
    found = {row["dst"] for text in shown for row in json.loads(text or "[]")}
    return {one for one in found if "/" not in one and one != "fe80::" and "::150" not in one}


def test_the_host_reaches_services(net):
    """Near and far, TCP, UDP, IPv6, a server of the node's own; routes come and go."""
    node1 = net.nodes["node1"]
    pods = [serve(net, short, 8010, "::") for short in ("a0", "b0")]
    echoes = [
        net.lab.spawn(short, sys.executable, "-c", UDP_ECHO, "8011", log=f"echo-{short}.log").pid
        for short in ("a0", "b0")
    ]
    own = serve(net, "node1", 8012, "::")
    for short in ("a0", "b0"):
        net.lab.wait_for("UDP", lambda s=short: ":8011 " in net.lab.run(s, "ss", "-lun").stdout)
    manifest = net.manifest("host.yaml", [
        *service("web", WEB, [A0, B0], 8010), *service("dns", DNS, [A0, B0], 8011, "UDP"),
        *service("own", OWN, [NODE1], 8012), *service("empty", EMPTY, [], 8010),
        *service("web6", WEB6, ["fd00:0::10", "fd00:2::10"], 8010),
        *service("own6", OWN6, [NODE6["node1"]], 8012),
    ])  # fmt: skip
    net.fwd(node1, "apply", "-f", str(manifest))
    loopbacks = {"169.254.42.1", "fda9:fe2a:100::1"}
    assert host_routes(net) == {WEB, DNS, OWN, EMPTY, WEB6, OWN6} | loopbacks
    for address in (WEB, f"[{WEB6}]", OWN, f"[{OWN6}]"):
        answers = [fetch(net, "node1", f"http://{address}/") for _ in range(8)]
        assert answers == ["200"] * 8, address
    for short in ("a0", "b0"):
        log = net.lab.log(f"http-{short}.log", 100)
        assert f"{ROUTER1} - -" in log, short
        assert "fd00::150 - -" in log, short
    log = net.lab.log("http-node1.log", 100)
    assert all(f"{loopback} - -" in log for loopback in loopbacks)
    for _ in range(8):
        assert python(net, "node1", UDP_ASK, DNS, 80, 3000, 1, 3) == ["whole"]
    before = net.drops(node1, Drop.SERVICE_BACKEND_NOT_FOUND)
    assert fetch(net, "node1", f"http://{EMPTY}/") == "000"
    assert net.drops(node1, Drop.SERVICE_BACKEND_NOT_FOUND) > before
    told = net.trace(node1, f"host -> {WEB}:80/tcp")
    assert told["result"] == "forwarded"
    assert "stage_lb" in {stage["function"] for stage in told["packet"]["stages"]}
    net.fwd(node1, "delete", "-f", str(manifest))
    assert host_routes(net) == set()
    assert fetch(net, "node1", f"http://{A0}:8010/") == "200"
    net.lab.end([*pods, *echoes, own])


def test_ipv6_between_host_and_pods_of_both_nodes(net):
    """The routers' IPv6 addresses take the same ways; IPv4 carries the tunnel."""
    assert net.reaches("node1", "fd00:0::10")
    assert net.reaches("node1", "fd00:2::10")
    assert net.reaches("a0", "fd00:0::150")


def test_a_pod_reaches_the_other_node(net):
    """Not a pod, so not in the tunnel: natively and under the node's address."""
    assert net.reaches("a0", NODE2)


def test_a_pod_reaches_the_world_under_the_nodes_address(net):
    """UDP, ping and TCP; the world sees 203.0.113.1 and can only answer that."""
    assert net.reaches("a0", WORLD)
    web = serve(net, "world", 8004)
    assert fetch(net, "a0", f"http://{WORLD}:8004/") == "200"
    net.lab.end([web])
    seen = net.lab.log("http-world.log")
    assert "203.0.113.1 " in seen
    assert A0 not in seen


def test_an_ipv6_pod_reaches_the_world_under_the_nodes_address(net):
    """As IPv4: the world has no route to fd00::/64 and answers all the same."""
    assert net.reaches("a0", WORLD6)
    web = serve(net, "world", 8005, "::")
    assert fetch(net, "a0", f"http://[{WORLD6}]:8005/") == "200"
    net.lab.end([web])
    seen = net.lab.log("http-world.log")
    assert f"{NODE6['node1']} " in seen
    assert "fd00:" not in seen


def test_what_the_host_routes_to_a_pod_is_the_worlds(net):
    """A world that has a route gets in, as the world and never as the host."""
    net.lab.run("world", "ip", "route", "add", "10.244.0.0/24", "via", "203.0.113.1")
    assert net.reaches("world", A0)
    net.lab.run("world", "ip", "route", "del", "10.244.0.0/24")
    with contextlib.closing(Client(net.nodes["node1"].socket)) as client:
        flows = list(client.rows("/v1/ct", map="any"))
    found = [r for r in flows if r["direction"] == "IN" and r["src_ip"] == WORLD]
    assert {flow["src_identity"] for flow in found} == {2}


def test_a_deleted_host_device_comes_back_with_a_reload(net):
    """The rest goes on; SIGHUP makes it again."""
    with contextlib.closing(Client(net.nodes["node1"].socket)) as client:
        assert client.get("/v1/status")["lost"] == []
        net.lab.run("node1", "ip", "link", "del", "cilium_host")
        assert net.reaches("a0", B0)
        assert net.ping("a0", NODE1).returncode != 0
        assert client.get("/v1/status")["lost"] == ["cilium_host"]
        net.reload(net.nodes["node1"])
        net.lab.wait_for("cilium_host", lambda: net.reaches("node1", A0), timeout_s=10)
        assert client.get("/v1/status")["lost"] == []
    assert net.reaches("a0", NODE1)


def test_a_reload_follows_peers_and_a_refused_one_changes_nothing(net):
    """A new peer's pod CIDR gets a route; one that another device has is refused, named by line."""
    node1 = net.nodes["node1"]
    data = files()[0]
    more = {"name": "node3", "ip": "192.168.56.107", "pod_cidr": "10.244.3.0/24"}
    net.write(node1, {**data, "peers": [*data["peers"], more]})
    net.reload(node1)
    route = ("ip", "route", "show", "10.244.3.0/24")
    net.lab.wait_for("the route", lambda: "cilium_host" in net.lab.run("node1", *route).stdout)
    net.lab.run("node1", "ip", "route", "add", "10.244.4.0/24", "dev", "eth0")
    taken = {**more, "pod_cidr": "10.244.4.0/24"}
    net.write(node1, {**data, "peers": [*data["peers"], taken]})
    net.reload(node1)
    net.lab.wait_for("the refusal", lambda: "10.244.4.0/24, see" in net.lab.log(node1.log, 50))
    assert "cilium_host" in net.lab.run("node1", *route).stdout
    net.lab.run("node1", "ip", "route", "del", "10.244.4.0/24")
    net.write(node1, data)
    net.reload(node1)
    net.lab.wait_for("its end", lambda: not net.lab.run("node1", *route).stdout)
    assert net.reaches("a0", WORLD)


def test_a_second_daemon_is_refused_before_anything_is_made(net):
    """The name of the device belongs to the first; file, line and owner, and nothing else."""
    node1 = net.nodes["node1"]
    second = node1.config.with_name("second.yaml")
    data = node1.config.read_text().replace(str(node1.socket), f"{node1.socket}2")
    second.write_text(data.replace("endpoints:", "tunnel: {port: 4789}\nendpoints:"))
    command = ("-m", "fwd", "run", "--config", str(second))
    done = net.lab.run("node1", sys.executable, *command, check=False)
    assert done.returncode in {1, 2}
    assert f"{second}:" in done.stderr
    assert net.reaches("node1", A0)


def test_stopping_takes_everything_of_the_host_away(net):
    """Device, routes, nftables table and the forwarding switch are as they were."""
    node2 = net.nodes["node2"]
    assert net.lab.run("node2", *FORWARD).stdout.split() == ["1", "1"]
    tables = net.lab.run("node2", "nft", "list", "tables").stdout
    assert ("ip fwd_masquerade" in tables, "ip6 fwd_masquerade" in tables) == (True, True)
    assert net.stop(node2), "SIGTERM was not enough"
    assert net.lab.run("node2", *FORWARD).stdout.split() == ["0", "0"]
    assert net.lab.run("node2", "nft", "list", "tables").stdout == ""
    assert "10.244" not in net.lab.run("node2", "ip", "route").stdout
    net.start(node2)
    assert net.reaches("a0", B0)
