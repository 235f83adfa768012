"""Pods talk across two daemons; the topology is drawn in worlds.py.

a0 10.244.0.10 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- b0 10.244.2.10
"""

from __future__ import annotations

import hashlib
import json
import os
import sys

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

pytestmark = [pytest.mark.netns]

A0, B0, ROUTER1 = "10.244.0.10", "10.244.2.10", "10.244.0.150"
FILE_LEN = 200 * 1024 * 1024


def test_pods_have_the_devices_the_node_file_names(net):
    """eth0 of a pod has its address, the tunnel's MTU, the MACs and a route over the router."""
    link = json.loads(net.lab.run("a0", "ip", "-j", "addr", "show", "dev", "eth0").stdout)[0]
    row = net.rows(net.nodes["node1"], "endpoint")[0]
    assert link["mtu"] == 1450
    assert link["address"] == row["mac"].lower()
    assert A0 in {entry["local"] for entry in link["addr_info"]}
    route = net.lab.run("a0", "ip", "route", "get", B0).stdout
    assert f"via {ROUTER1}" in route


def test_ping_crosses_the_tunnel(net):
    """A pod reaches a pod of the other node, one hop away, both ways."""
    for short, address in (("a0", B0), ("b0", A0)):
        assert net.reaches(short, address)
        assert "ttl=63" in net.ping(short, address).stdout


def test_router_answers_echo(net):
    """The gateway answers ping from its own pods."""
    assert net.reaches("a0", ROUTER1)


def test_pod_mtu_is_the_edge(net):
    """1422 bytes of ping data fit the tunnel unfragmented, one more is refused in the pod."""
    assert net.reaches("a0", B0)
    assert net.ping("a0", B0, "-M", "do", "-s", "1422").returncode == 0
    refused = net.ping("a0", B0, "-M", "do", "-s", "1423")
    assert refused.returncode != 0
    assert "message too long" in (refused.stdout + refused.stderr).lower()


def test_larger_datagrams_travel_in_fragments(net):
    """A ping of 4000 bytes arrives: fragments keep their flow."""
    assert net.ping("a0", B0, "-s", "4000").returncode == 0


def test_an_expired_ttl_is_silence(net):
    """As in Cilium: without ``features.ttl_exceeded_reply`` nobody is told, the drop is counted."""
    node2 = net.nodes["node2"]
    assert net.reaches("a0", B0)
    before = net.drops(node2, Drop.TTL_EXCEEDED)
    told = net.ping("a0", B0, "-t", "1", "-W", "1")
    assert told.returncode != 0
    assert "exceeded" not in told.stdout
    assert net.drops(node2, Drop.TTL_EXCEEDED) == before + 1


@pytest.mark.slow
def test_a_large_file_arrives_whole(net, tmp_path):
    """200 MB over HTTP have the SHA-256 they had before."""
    data = tmp_path / "file"
    digest = hashlib.sha256()
    with data.open("wb") as target:
        for _ in range(FILE_LEN >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            target.write(block)
    web = net.lab.spawn(
        "b0", sys.executable, "-m", "http.server", "--directory", str(tmp_path), "8000",
        log="http.log",
    )  # fmt: skip
    url = f"http://{B0}:8000/file"
    net.lab.wait_for(
        "the file server",
        lambda: net.lab.run("a0", "curl", "-sfI", "-m", "3", url, check=False).returncode == 0,
    )
    got = tmp_path / "got"
    net.lab.run("a0", "curl", "-sSf", "-o", str(got), url, timeout_s=240)
    net.lab.end([web.pid])
    with got.open("rb") as source:
        assert hashlib.file_digest(source, "sha256").hexdigest() == digest.hexdigest()


def test_one_tcp_flow_has_a_rate(net, capsys):
    """iperf3 carries one flow for three seconds; its rate is printed, not judged."""
    server = net.lab.spawn("b0", "iperf3", "-s", "-1", log="iperf3.log")
    net.lab.wait_for("iperf3", lambda: ":5201" in net.lab.run("b0", "ss", "-ltn").stdout)
    report = json.loads(net.lab.run("a0", "iperf3", "-J", "-t", "3", "-c", B0).stdout)
    net.lab.end([server.pid])
    rate = report["end"]["sum_received"]["bits_per_second"]
    with capsys.disabled():
        print(f"\n  iperf3, one TCP flow between pods of two nodes: {rate / 1e9:.2f} Gbit/s")
    assert rate > 0


@pytest.mark.slow
def test_ten_pods_a_node_reach_each_other():
    """Every pod of node1 pings every pod of node2, and its neighbour on the same node."""
    rows1 = [pod("node1", index) for index in range(10)]
    rows2 = [pod("node2", index) for index in range(10)]
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in two_nodes(rows1, rows2)]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        silent = {
            row["name"]: lost
            for index, row in enumerate(rows1)
            if (lost := _unanswered(net, index, [*rows2, rows1[(index + 1) % 10]]))
        }
        assert silent == {}
        assert len(net.rows(nodes[0], "endpoint")) == 10
        net.check()


def _unanswered(net: Net, index: int, targets: list[dict[str, str]]) -> str:
    """Addresses that do not answer the pod, pinged side by side in one shell."""
    script = "for a in $0 $@; do (ping -q -c 3 -i 0.2 -w 5 $a >/dev/null || echo $a) & done; wait"
    addresses = [row["ip"] for row in targets]
    return net.lab.run(f"a{index}", "sh", "-c", script, *addresses).stdout.strip()
