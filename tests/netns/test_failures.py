"""What breaks under a daemon breaks alone: pods that go, peers that are down, hostile packets.

a0, a1 -- TAPs -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAPs -- b0, b1
10.244.0.10 .11   192.168.56.105         192.168.56.106   10.244.2.10 .11
"""

from __future__ import annotations

import json
import sys

import pytest

from fwd.model.enums import Drop
from tests.netns.worlds import pod, two_nodes

pytestmark = [pytest.mark.netns]

A0, A1, B0, B1 = "10.244.0.10", "10.244.0.11", "10.244.2.10", "10.244.2.11"

SEND_UDP = """
import os, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for length in range(0, 200):
    sock.sendto(os.urandom(length), (sys.argv[1], 8472))
"""

SEND_VXLAN = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 0))
for _ in range(5):
    sock.sendto(bytes.fromhex("0800000000659000") + bytes(64), (sys.argv[2], 8472))
"""

SEND_SPOOFED = """
import socket, sys
from scapy.all import Ether, IP, UDP, Raw
frame = bytes(Ether(src=sys.argv[1], dst=sys.argv[2]) / IP(src="10.244.0.99", dst=sys.argv[3])
              / UDP(sport=1, dport=2) / Raw(b"x"))
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
for _ in range(5):
    sock.send(frame)
"""

SEND_GARBAGE = """
import os, random, socket
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
rng = random.Random(1)
for number in range(500):
    ethertype = bytes.fromhex(rng.choice(["0800", "86dd", "8100", "0806", "0010"]))
    sock.send(b"\\xff" * 6 + b"\\x02" * 6 + ethertype + rng.randbytes(rng.randrange(0, 1400)))
"""


def test_a_pod_deleted_under_the_daemon_takes_nobody_along(own_net):
    """The namespace of a0 goes; a1 still reaches the other node, and the daemon says so."""
    net, node1 = own_net, own_net.nodes["node1"]
    assert net.reaches("a0", B0)
    net.lab.drop_namespace("a0")
    assert net.reaches("a1", B1)
    assert not net.reaches("b0", A0)
    assert node1.daemon.poll() is None
    states = {row["name"]: row["state"] for row in net.rows(node1, "endpoint")}
    assert states["default/a1"] == "ready"
    assert states["default/a0"] != "ready"


def test_a_peer_that_is_down_takes_nobody_along(own_net):
    """node2's daemon stops (its port answers unreachable); node1's pods still reach each other."""
    net, node2 = own_net, own_net.nodes["node2"]
    assert net.reaches("a0", B0)
    assert net.stop(node2)
    assert not net.reaches("a0", B0)
    assert net.reaches("a0", A1)
    net.start(node2)
    assert net.reaches("a0", B0)


def test_sigterm_leaves_nothing(own_net):
    """A stopped daemon takes its devices, routes and socket along."""
    net, node1 = own_net, own_net.nodes["node1"]
    assert net.stop(node1), "SIGTERM was not enough"
    for namespace in ("node1", "a0", "a1"):
        links = json.loads(net.lab.run(namespace, "ip", "-j", "link").stdout)
        assert {link["ifname"] for link in links} <= {"lo", "eth0"}, namespace
    pod_links = json.loads(net.lab.run("a0", "ip", "-j", "link").stdout)
    assert [link["ifname"] for link in pod_links] == ["lo"]
    assert "10.244" not in net.lab.run("node1", "ip", "route").stdout
    assert not node1.socket.exists()


def test_sighup_adds_and_removes_an_endpoint(own_net):
    """A reload by diff: a new pod talks, a removed one is gone, the third keeps its connection."""
    net, node1 = own_net, own_net.nodes["node1"]
    file1, _ = two_nodes([pod("node1", 1), pod("node1", 2)], [pod("node2", 0), pod("node2", 1)])
    file2 = two_nodes([pod("node1", 1), pod("node1", 2)], [pod("node2", 0), pod("node2", 1)])[1]
    steady = net.lab.spawn("a1", "ping", "-i", "0.1", "-w", "6", B1, log="steady.log")
    for node, data in ((node1, file1), (net.nodes["node2"], file2)):
        net.write(node, data)
        net.reload(node)
    net.lab.wait_for("the new endpoint", lambda: _names(net) == {"default/a1", "default/a2"})
    assert net.reaches("a2", B0)
    assert "eth0" not in net.lab.run("a0", "ip", "-br", "link").stdout
    steady.wait(timeout=20)
    assert " 0% packet loss" in net.lab.log("steady.log")


def test_a_bad_file_at_sighup_changes_nothing(own_net):
    """A node file that does not load leaves the old state, and the log names file and line."""
    net, node1 = own_net, own_net.nodes["node1"]
    text = node1.config.read_text()
    node1.config.write_text(f"{text}\nendpoint: []\n")
    net.reload(node1)
    net.lab.wait_for("the refusal", lambda: f"{node1.config}:" in net.lab.log(node1.log, 50))
    assert _names(net) == {"default/a0", "default/a1"}
    assert net.reaches("a0", B0)


def _names(net) -> set[str]:
    return {row["name"] for row in net.rows(net.nodes["node1"], "endpoint")}


def test_a_spoofed_source_is_dropped_and_counted(own_net):
    """Frames from another address than the pod's die as INVALID_SOURCE_IP, five of them."""
    net, node1 = own_net, own_net.nodes["node1"]
    row = next(row for row in net.rows(node1, "endpoint") if row["name"] == "default/a0")
    before = net.drops(node1, Drop.INVALID_SOURCE_IP)
    net.lab.run("a0", sys.executable, "-c", SEND_SPOOFED, row["mac"], row["node_mac"], B0)
    net.lab.wait_for(
        "the counter", lambda: net.drops(node1, Drop.INVALID_SOURCE_IP) == before + 5, timeout_s=10
    )


def test_garbage_on_the_tunnel_port_is_counted(own_net):
    """Any bytes from a known peer's address are counted, and the tunnel goes on."""
    net, node1 = own_net, own_net.nodes["node1"]
    names = (
        Drop.ERROR_RETRIEVING_TUNNEL_KEY,
        Drop.VNI_NOT_IDENTITY,
        Drop.SPOOFED_TUNNEL_SOURCE,
        Drop.INVALID_IDENTITY,
        Drop.INVALID_PACKET_DROPPED,
    )
    before = sum(net.drops(node1, name) for name in names)
    net.lab.run("node2", sys.executable, "-c", SEND_UDP, "192.168.56.105")
    net.lab.wait_for(
        "the counters",
        lambda: sum(net.drops(node1, name) for name in names) >= before + 190,
        timeout_s=10,
    )
    assert net.reaches("a0", B0)


def test_an_unknown_peer_is_counted(own_net):
    """VXLAN from an address that no peers row names dies as UNKNOWN_PEER, five times."""
    net, node1 = own_net, own_net.nodes["node1"]
    before = net.drops(node1, Drop.UNKNOWN_PEER)
    net.lab.run("node2", "ip", "addr", "add", "192.168.56.200/24", "dev", "eth0")
    net.lab.run("node2", sys.executable, "-c", SEND_VXLAN, "192.168.56.200", "192.168.56.105")
    net.lab.wait_for(
        "the counter", lambda: net.drops(node1, Drop.UNKNOWN_PEER) == before + 5, timeout_s=10
    )
    assert net.reaches("a0", B0)


def test_garbage_from_a_pod_harms_nobody(own_net):
    """500 random frames of every ethertype from a0: a1 goes on, and so does a0."""
    net, node1 = own_net, own_net.nodes["node1"]
    net.lab.run("a0", sys.executable, "-c", SEND_GARBAGE)
    assert net.reaches("a1", B1)
    assert net.reaches("a0", B0)
    assert node1.daemon.poll() is None
