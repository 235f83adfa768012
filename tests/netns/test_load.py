"""A pod that floods: ten times the conntrack table in SYNs, beside a thousand open connections.

a0 (floods), a1 -- TAPs -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAPs -- b0 (echoes), b1
                           1020 entries                 1020 entries
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.control.topology import LabNode

pytestmark = [pytest.mark.netns]

CAP, OPEN, PORT = 1020, 1000, 7000
B0, B1, DARK = "10.244.2.10", "10.244.2.11", "10.244.2.99"
MIB = 1 << 20

SERVER = """
import resource, select, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
listener = socket.create_server(("", int(sys.argv[1])), backlog=2048)
poll, open_ = select.epoll(), {}
poll.register(listener, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            one = listener.accept()[0]
            open_[one.fileno()] = one
            poll.register(one, select.EPOLLIN)
        else:
            data = open_[fd].recv(100)
            if data:
                open_[fd].send(data)
            else:
                poll.unregister(fd)
                open_.pop(fd).close()
"""

CLIENT = """
import pathlib, resource, socket, sys, time
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
go = pathlib.Path(sys.argv[4])

def echo():
    good = 0
    for one in conns:
        one.send(b"hello")
    for one in conns:
        good += one.recv(100) == b"hello"
    return good

conns = []
for _ in range(count):
    conns.append(socket.create_connection((address, port), timeout=5))
print("open", echo(), flush=True)
while not go.exists():
    time.sleep(0.05)
print("still", echo(), flush=True)
"""

FLOOD = """
import socket, struct, sys, time
from scapy.all import Ether, IP, TCP
smac, dmac, count, per_batch, targets = *sys.argv[1:3], int(sys.argv[3]), 64, sys.argv[4:]
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
frames = [bytearray(bytes(Ether(src=smac, dst=dmac) / IP(src="10.244.0.10", dst=to)
                          / TCP(sport=0, dport=9, flags="S"))) for to in targets]
def fold(total):
    total = (total & 0xffff) + (total >> 16)
    return (total & 0xffff) + (total >> 16)
sums = [~struct.unpack_from("!H", frame, 50)[0] & 0xffff for frame in frames]
for number in range(count):
    kind, sport = number % len(frames), 1024 + number // len(frames)
    frame = frames[kind]
    struct.pack_into("!H", frame, 34, sport)
    struct.pack_into("!H", frame, 50, ~fold(sums[kind] + sport) & 0xffff)
    sock.send(frame)
    if number % per_batch == 0:
        time.sleep(0.002)
"""

CONNECT = """
import socket, sys, time
start = time.monotonic()
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as one:
    one.send(b"hello")
    assert one.recv(100) == b"hello"
print(time.monotonic() - start)
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """The drawing above; b0 answers, b1 refuses, and behind DARK there is nobody."""
    files = two_nodes([pod("node1", 0), pod("node1", 1)], [pod("node2", 0), pod("node2", 1)])
    for data in files:
        data["conntrack"] = {"capacity": {"tcp": CAP, "any": 4096}}
    files[0]["ipcache"].append({**files[0]["ipcache"][0], "prefix": f"{DARK}/32"})
    with Lab(PREFIX) as lab:
        lab_net = Net(lab)
        nodes = [lab_net.add_node(data) for data in files]
        lab_net.wire(*nodes)
        for node in nodes:
            lab_net.start(node)
        lab.spawn("b0", sys.executable, "-c", SERVER, str(PORT), log="server.log")
        lab.wait_for("the server", lambda: f":{PORT} " in lab.run("b0", "ss", "-ltn").stdout)
        yield lab_net
        for node in nodes:
            assert lab_net.complaints(node) == []


def tcp_table(net: Net, node: LabNode) -> dict[str, Any]:
    """Use of a node's TCP conntrack: count, cap, evictions, failures."""
    found: dict[str, Any] = json.loads(net.fwd(node, "status", "-o", "json"))["tables"]["ct_tcp"]
    return found


def resident(node: LabNode) -> int:
    """Bytes of memory the daemon has, the arena's among them."""
    assert node.daemon is not None
    status = Path(f"/proc/{node.daemon.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def flood(net: Net, count: int) -> None:
    """Send SYNs of that many flows from a0, half of which nobody answers and half a RST."""
    row = next(r for r in net.rows(net.nodes["node1"], "endpoint") if r["name"] == "default/a0")
    command = (sys.executable, "-c", FLOOD, row["mac"], row["node_mac"], str(count), DARK, B1)
    net.lab.run("a0", *command)


def connect(net: Net) -> float:
    """Open a connection from a1 and use it; seconds it took."""
    return float(net.lab.run("a1", sys.executable, "-c", CONNECT, B0, str(PORT)).stdout)


def test_flood_costs_nobody_a_connection_and_is_over_when_it_ends(net):
    """1000 of 1020 entries are established: all live on; the flood is refused and counted."""
    node1 = net.nodes["node1"]
    go = net.lab.directory / "go"
    client = net.lab.spawn(
        "a1", sys.executable, "-c", CLIENT, B0, str(PORT), str(OPEN), str(go), log="client.log"
    )
    net.lab.wait_for("connections", lambda: f"open {OPEN}" in net.lab.log("client.log"), 60)
    flood(net, CAP)
    before, table = resident(node1), tcp_table(net, node1)
    assert table["count"] == CAP
    flood(net, 10 * CAP)
    took = connect(net)
    assert took <= 2, took
    grown = resident(node1) - before
    after = tcp_table(net, node1)
    turned_away = {key: after[key] - table[key] for key in ("evictions", "failures")}
    assert sum(turned_away.values()) > 9 * CAP
    assert turned_away["failures"] > CAP
    assert net.drops(node1, Drop.CT_MAP_INSERTION_FAILED) >= turned_away["failures"] - CAP
    assert abs(grown) < 2 * MIB, f"{grown} bytes"
    go.touch()
    client.wait(timeout=30)
    assert f"still {OPEN}" in net.lab.log("client.log")
    assert sum(connect(net) < 2 for _ in range(20)) == 20


def test_pod_beside_the_flood_is_served_while_it_lasts(net):
    """Without a thousand connections there is always room: a1 connects during the flood."""
    row = next(r for r in net.rows(net.nodes["node1"], "endpoint") if r["name"] == "default/a0")
    command = (sys.executable, "-c", FLOOD, row["mac"], row["node_mac"], str(60 * CAP), DARK, B1)
    flooding = net.lab.spawn("a0", *command, log="flood.log")
    time.sleep(0.5)
    times = []
    while flooding.poll() is None:
        times.append(connect(net))
    assert flooding.returncode == 0, net.lab.log("flood.log")
    assert len(times) >= 3
    assert max(times) < 2, times
