"""IPv6 pods over the IPv4 underlay, two daemons; the topology is drawn in worlds.py.

a0, a1 -- TAPs -- fwd node1 ==== UDP 8472 over IPv4 ==== fwd node2 -- TAPs -- b0, b1
fd00:1::10 ::11                                                   fd00:2::10 ::11

fd00:96::10 port 80 stands for port 8080 of a1 and b0, fd00:96::11 for the same with affinity.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.programs import fetch, nginx
from tests.netns.worlds import dual_stack, pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

A0, A1, B0 = "fd00:1::10", "fd00:1::11", "fd00:2::10"
ROUTER1, ROUTER2 = "fd00:1::150", "fd00:2::150"
WEB, STICKY = "fd00:96::10", "fd00:96::11"
SELF, LOOPBACK = "fd00:96::13", "fda9:fe2a:100::1"
TUNNEL_MTU = 1450

SEND_ADVERTS = """
import sys
from scapy.all import Ether, IPv6, ICMPv6ND_NA, ICMPv6ND_RA, ICMPv6NDOptPrefixInfo, sendp
from scapy.all import ICMPv6NDOptDstLLAddr
own, router, victim = sys.argv[1:]
ether, lie = Ether(src=own, dst="33:33:00:00:00:01"), ICMPv6NDOptDstLLAddr(lladdr=own)
advert = ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="fd00:bad::", prefixlen=64)
for dst in ("ff02::1", victim):
    sendp([ether / IPv6(src="fe80::1", dst=dst, hlim=255) / advert,
           ether / IPv6(src=router, dst=dst, hlim=255) / ICMPv6ND_NA(tgt=router, R=1, O=1) / lie],
          iface="eth0", verbose=False)
"""


@pytest.fixture(scope="module")
def dual() -> Iterator[Net]:
    """Two pods a node, both families; a0's TTL expiry is told for IPv4 too."""
    pods = [[pod(node, index) for index in range(2)] for node in ("node1", "node2")]
    files = dual_stack(two_nodes(*pods))
    backends = [{"ip": one, "port": 8080} for one in (A1, B0)]
    for data in files:
        data["features"] = {"ttl_exceeded_reply": True}
        data["services"] = [
            {"name": "default/web", "frontend": WEB, "port": 80, "backends": backends},
            {"name": "default/sticky", "frontend": STICKY, "port": 80, "backends": backends,
             "flags": ["affinity"], "affinity_timeout_s": 60},
        ]  # fmt: skip
    files[0]["services"].append(
        {"name": "self", "frontend": SELF, "port": 80, "backends": [{"ip": A0, "port": 8080}]}
    )
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        yield net


def test_a_pod_has_its_address_and_a_way_out(dual):
    """A /128 that is usable at once, the tunnel's MTU, a default route over the router."""
    link = json.loads(dual.lab.run("a0", "ip", "-j", "addr", "show", "dev", "eth0").stdout)[0]
    assert link["mtu"] == TUNNEL_MTU
    info = {entry["local"]: entry for entry in link["addr_info"]}
    assert info[A0]["prefixlen"] == 128
    assert not info[A0].get("tentative")
    assert f"via {ROUTER1}" in dual.lab.run("a0", "ip", "-6", "route", "get", B0).stdout


def test_ping6_reaches_pods_and_the_router(dual):
    """Neighbour discovery finds the router; one hop to pods of this node and of the other."""
    for address, ttl in ((ROUTER1, 64), (A1, 63), (B0, 63)):
        assert dual.reaches("a0", address), address
        assert f"ttl={ttl}" in dual.ping("a0", address).stdout
    assert dual.reaches("b0", A1)


def test_curl6_fetches_a_file_from_the_other_node(dual, tmp_path):
    """With -6 curl gets what a server on the other node has, larger than a window."""
    data = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(data)
    web = dual.lab.spawn(
        "b0", sys.executable, "-m", "http.server", "--bind", "::", "--directory", str(tmp_path),
        "8000", log="http6.log",
    )  # fmt: skip
    url = f"http://[{B0}]:8000/file"
    dual.lab.wait_for(
        "the file server",
        lambda: dual.lab.run("a0", "curl", "-6sfI", "-m", "3", url, check=False).returncode == 0,
    )
    got = tmp_path / "got"
    dual.lab.run("a0", "curl", "-6sSf", "-g", "-o", str(got), url)
    dual.lab.end([web.pid])
    assert got.read_bytes() == data


def test_curl6_reaches_a_neighbour_and_a_service(dual):
    """Directly on the same node; through a service those of both nodes, each its share."""
    servers = [nginx(dual, short) for short in ("a1", "b0")]
    assert fetch(dual, "a0", f"http://[{A1}]:8080/") == ["a1"]
    assert fetch(dual, "a0", f"http://[{B0}]:8080/") == ["b0"]
    for client in ("a0", "b1"):
        count = Counter(fetch(dual, client, f"http://[{WEB}]/", 40))
        assert count.keys() == {"a1", "b0"}, client
        assert min(count.values()) >= 5, client
    sticky = set(fetch(dual, "a0", f"http://[{STICKY}]/", 10))
    assert len(sticky) == 1
    assert sticky < {"a1", "b0"}
    dual.lab.end(servers)


def test_a_pod_reaches_itself_through_an_ipv6_service(dual, tmp_path):
    """Its server sees the loopback address, and a large answer comes back whole."""
    data = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(data)
    web = dual.lab.spawn(
        "a0", sys.executable, "-m", "http.server", "--bind", "::", "--directory", str(tmp_path),
        "8080", log="self6.log",
    )  # fmt: skip
    got = tmp_path / "got"
    dual.lab.wait_for("the server", lambda: ":8080" in dual.lab.run("a0", "ss", "-ltn").stdout)
    url = f"http://[{SELF}]/file"
    dual.lab.run("a0", "curl", "-6sSf", "-g", "-m", "20", "-o", str(got), url)
    dual.lab.end([web.pid])
    assert got.read_bytes() == data
    assert f"{LOOPBACK} - -" in dual.lab.log("self6.log")


def test_the_tunnels_mtu_is_the_edge(dual):
    """1402 bytes of ping data fit unfragmented; 8000 bytes arrive in fragments."""
    assert dual.reaches("a0", B0)
    assert dual.ping("a0", B0, "-M", "do", "-s", "1402").returncode == 0
    assert dual.ping("a0", B0, "-s", "8000").returncode == 0


@pytest.mark.parametrize("address", [B0, "10.244.2.10"])
def test_a_pod_with_a_larger_mtu_is_told_the_tunnels(dual, address):
    """Who sends beyond the tunnel's MTU learns it from the router, and what follows fits."""
    dual.reaches("a0", address)
    dual.lab.run("a0", "ip", "link", "set", "eth0", "mtu", "1500")
    try:
        refused = dual.ping("a0", address, "-M", "do", "-s", "1440")
        assert refused.returncode != 0
        family = "-6" if ":" in address else "-4"
        route = dual.lab.run("a0", "ip", family, "route", "get", address).stdout
        assert f"mtu {TUNNEL_MTU}" in route
        assert dual.ping("a0", address, "-s", "1440").returncode == 0
    finally:
        dual.lab.run("a0", "ip", "link", "set", "eth0", "mtu", str(TUNNEL_MTU))


@pytest.mark.parametrize(
    ("target", "teller"),
    [(A1, ROUTER1), (B0, ROUTER2), ("10.244.0.11", "10.244.0.150")],
)
def test_time_exceeded_names_the_router_on_the_way(dual, target, teller):
    """A ping with one hop to live: the node that takes the hop says so, also across the tunnel."""
    assert dual.reaches("a0", target)
    told = dual.ping("a0", target, "-t", "1")
    assert told.returncode != 0
    assert f"From {teller} " in told.stdout
    assert "Time exceeded" in told.stdout or "Time to live exceeded" in told.stdout


def test_forged_adverts_harm_nobody(dual):
    """A pod that claims to be the router: no other pod believes it, the drops are counted."""
    node1 = dual.nodes["node1"]
    assert dual.reaches("a1", B0)
    row = next(row for row in dual.rows(node1, "endpoint") if row["name"] == "default/a0")
    before = dual.drops(node1, Drop.FORBIDDEN_ICMPV6_MESSAGE)
    dual.lab.run("a0", sys.executable, "-c", SEND_ADVERTS, row["mac"], ROUTER1, A1)
    dual.lab.wait_for(
        "the counter",
        lambda: dual.drops(node1, Drop.FORBIDDEN_ICMPV6_MESSAGE) == before + 2,
        timeout_s=10,
    )
    neighbour = dual.lab.run("a1", "ip", "-6", "neigh", "show", ROUTER1, "dev", "eth0").stdout
    assert row["mac"].lower() not in neighbour
    assert "fd00:bad" not in dual.lab.run("a1", "ip", "-6", "addr").stdout
    assert dual.reaches("a1", B0)


def test_asking_for_a_strangers_mac_is_counted(dual):
    """A pod that looks for an on-link neighbour nobody has gets silence and a counted drop."""
    node1 = dual.nodes["node1"]
    before = dual.drops(node1, Drop.UNKNOWN_L3_TARGET_ADDRESS)
    dual.lab.run("a0", "ip", "-6", "route", "add", "fd00:1::77", "dev", "eth0")
    assert dual.ping("a0", "fd00:1::77").returncode != 0
    assert dual.drops(node1, Drop.UNKNOWN_L3_TARGET_ADDRESS) > before
