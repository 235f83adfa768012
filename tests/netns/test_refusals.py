"""Who is refused is told at once: denied flows and services without a backend, with real programs.

a0 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- b0
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

B0, EMPTY = "10.244.2.10", "10.96.0.14"
ANSWERED_NO_BACKEND, ANSWERED_DENIED = 106, 107
REFUSED, NO_ROUTE = "ConnectionRefusedError Connection refused", "OSError No route to host"

ASK = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
with socket.socket(socket.AF_INET, kind) as sock:
    sock.settimeout(10)
    try:
        sock.connect((sys.argv[2], int(sys.argv[3])))
        sock.send(b"anybody in?")
        sock.recv(100)
    except OSError as error:
        print(type(error).__name__, error.strerror)
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    """One pod a node; node1 refuses aloud what it does not carry."""
    files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
    files[0] |= {
        "features": {"no_backend": "reject", "deny": "reject"},
        "policy": [
            {"endpoint": "default/a0", "direction": "egress", "identity": "any", "proto": proto,
             "port": 81, "action": "deny"}
            for proto in ("tcp", "udp")
        ],
        "services": [
            {"name": proto, "frontend": EMPTY, "port": 80, "proto": proto, "backends": []}
            for proto in ("tcp", "udp")
        ],
    }  # fmt: skip
    with Lab(PREFIX) as lab:
        lab_net = Net(lab)
        nodes = [lab_net.add_node(data) for data in files]
        lab_net.wire(*nodes)
        for node in nodes:
            lab_net.start(node)
        yield lab_net


@pytest.mark.parametrize("proto", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("address", "port", "metric"),
    [(EMPTY, "80", ANSWERED_NO_BACKEND), (B0, "81", ANSWERED_DENIED)],
)
def test_who_is_refused_is_told(net, proto, address, port, metric):
    """The program in the pod gets the error, not a timeout; it is counted as an answer."""
    node1 = net.nodes["node1"]
    said = net.lab.run("a0", sys.executable, "-c", ASK, proto, address, port).stdout
    prohibited = (address, proto) == (B0, "udp")  # a denied TCP flow is reset
    assert said.strip() == (NO_ROUTE if prohibited else REFUSED)
    rows = net.rows(node1, "metrics")
    assert sum(row["packets"] for row in rows if row["code"] == metric) > 0
    assert net.drops(node1, Drop.POLICY_DENY) == 0
    assert net.drops(node1, Drop.SERVICE_BACKEND_NOT_FOUND) == 0
