"""The same traffic with every set of offloads: all, none, and each of them missing.

a0 10.244.0.10 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- b0 10.244.2.10
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import textwrap

import pytest

from fwd.api.client import Client
from fwd.control.topology import read_node_file

pytestmark = [pytest.mark.netns]

B0, A1 = "10.244.2.10", "10.244.0.11"
FILE_LEN = 8 << 20
SWITCHES = ("csum", "tso", "uso", "udp_segment", "udp_gro", "merge")

# A server that answers each numbered datagram with its SHA-256, and a client that sends bursts of
# equal, shorter and 8 KB datagrams, by UDP_SEGMENT, too, and checks every answer.
SERVER = """
import hashlib, socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
sock.bind(("0.0.0.0", 7000))
while True:
    data, peer = sock.recvfrom(65536)
    sock.sendto(hashlib.sha256(data).digest(), peer)
"""
CLIENT = """
import hashlib, os, socket, struct, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(10)
sock.connect((sys.argv[1], 7000))
def ask(datagrams, send):
    send()
    want = sorted(hashlib.sha256(one).digest() for one in datagrams)
    got = sorted(sock.recv(100) for _ in datagrams)
    assert got == want
for size in (1, 64, 500, 1400, 8000):
    burst = [os.urandom(size) for _ in range(8)] + [os.urandom(max(size // 2, 1))]
    ask(burst, lambda: [sock.send(one) for one in burst])
for size in (64, 1000, 1398):
    train = [os.urandom(size) for _ in range(20)] + [os.urandom(size // 3)]
    control = [(17, 103, struct.pack("=H", size))]
    ask(train, lambda: sock.sendmsg([b"".join(train)], control))
print("all answered")
"""


def set_offload(net, **switches: bool) -> None:
    """Write the switches into both node files and reload both daemons."""
    for node in net.nodes.values():
        net.write(node, read_node_file(node.config) | {"features": {"offload": switches}})
        with contextlib.closing(Client(node.socket)) as client:
            client.post("/v1/reload")


def pump(net, name: str) -> dict[str, int]:
    """The counters of a node's pump."""
    with contextlib.closing(Client(net.nodes[name].socket)) as client:
        return dict(client.get("/v1/status")["pump"])


@pytest.fixture(scope="module")
def servers(net, tmp_path_factory):
    """A file server and the datagram server in b0; the file's SHA-256."""
    folder = tmp_path_factory.mktemp("www")
    data = os.urandom(FILE_LEN)
    (folder / "file").write_bytes(data)
    (folder / "udp.py").write_text(textwrap.dedent(SERVER))
    (folder / "ask.py").write_text(textwrap.dedent(CLIENT))
    net.lab.spawn("b0", sys.executable, "-m", "http.server", "--directory", str(folder), "8000",
                  log="http.log")  # fmt: skip
    net.lab.spawn("b0", sys.executable, str(folder / "udp.py"), log="udp.log")
    ask = ("curl", "-sfI", "-m", "3", f"http://{B0}:8000/file")
    net.lab.wait_for(
        "the file server", lambda: net.lab.run("a0", *ask, check=False).returncode == 0
    )
    return folder, hashlib.sha256(data).hexdigest()


CASES = [
    {},
    dict.fromkeys(SWITCHES, False),
    *({name: False} for name in SWITCHES),
    {"tso": False, "uso": False, "udp_gro": False},
]


@pytest.mark.parametrize("switches", CASES, ids=lambda one: "no-" + "-".join(one) if one else "all")
def test_content_arrives_whole(net, servers, switches, tmp_path):
    """A file both ways and every kind of datagram, byte for byte; nothing is dropped."""
    folder, digest = servers
    set_offload(net, **switches)
    before = {name: pump(net, name) for name in net.nodes}
    url = f"http://{B0}:8000/file"
    net.lab.run("a0", "curl", "-sf", "-m", "60", "-o", str(tmp_path / "got"), url)
    assert hashlib.sha256((tmp_path / "got").read_bytes()).hexdigest() == digest
    asked = net.lab.run("a0", sys.executable, str(folder / "ask.py"), B0)
    assert asked.stdout == "all answered\n"
    grown = {
        name: {key: value - before[name][key] for key, value in pump(net, name).items()}
        for name in net.nodes
    }
    for key in ("udp_send_errors", "tap_write_errors", "udp_rx_overflow", "tap_split",
                "udp_segment_refused", "tap_uso_refused"):  # fmt: skip
        assert [grown[name][key] for name in net.nodes] == [0, 0], key
    csum, tso, uso, train, _, merge = (switches.get(name, True) for name in SWITCHES)
    assert (grown["node1"]["tap_rx_super"] > 0) == (csum and uso)  # the client's trains
    assert (grown["node2"]["tap_rx_super"] > 0) == (csum and tso)  # the file
    assert (grown["node2"]["udp_tx_trains"] > 0) == train
    assert (grown["node1"]["udp_rx_merged"] > 0) == merge


def test_switching_in_the_middle_of_a_download(net, servers, tmp_path):
    """Offloads go off and on under a running transfer; it arrives whole."""
    _, digest = servers
    url = f"http://{B0}:8000/file"
    curl = net.lab.spawn("a0", "curl", "-sf", "-m", "60", "--limit-rate", "4M",
                         "-o", str(tmp_path / "got"), url, log="curl.log")  # fmt: skip
    for on in (False, True, False, True):
        set_offload(net, **dict.fromkeys(SWITCHES, on))
    assert curl.wait(timeout=60) == 0
    assert hashlib.sha256((tmp_path / "got").read_bytes()).hexdigest() == digest


def test_status_names_the_offloads(net):
    """`fwd status` tells what is in use; a reload by SIGHUP counts, too."""
    set_offload(net, uso=False)
    with contextlib.closing(Client(net.nodes["node1"].socket)) as client:
        status = client.get("/v1/status")["offload"]
    assert (status["tso"], status["uso"], status["merge_udp"]) == (True, False, False)
    assert status["segments_max"] in {64, 128}
    set_offload(net)
