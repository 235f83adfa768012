"""The live walk and the replay of scenario 01 are one walk: same code, same observation points.

curl 10.244.0.108 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- nginx 10.244.2.171
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwd.api.client import ApiError, Client
from fwd.control.lab import Lab
from fwd.control.topology import LabNode, read_node_file
from tests.netns.net import PREFIX, Net

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

SCENARIO = Path(__file__).parent.parent / "scenarios" / "01-curl-to-nginx"
URL = "http://10.244.2.171/"


@pytest.fixture
def net() -> Iterator[Net]:
    """The scenario's two nodes, live."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [
            net.add_node(read_node_file(SCENARIO / f"{name}.yaml")) for name in ("node1", "node2")
        ]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        yield net


def _follow(node: LabNode) -> list[dict[str, Any]]:
    """The node's traces and verdicts, growing while the daemon lives."""
    records: list[dict[str, Any]] = []

    def collect() -> None:
        with contextlib.suppress(ApiError, OSError):
            stream = Client(node.socket).stream("/v1/monitor", type=["trace", "policy-verdict"])
            for record in stream:
                records.append(record)  # noqa: PERF402 - grows while it is read

    threading.Thread(target=collect, daemon=True).start()
    return records


def _points(records: list[dict[str, Any]]) -> list[str]:
    """Observation points of the first SYN, in order."""
    first = [one for one in records if str(one.get("connection")).endswith("tcp SYN")]
    own = [one for one in first if one["time_ns"] == first[0]["time_ns"]]
    return [str(one.get("observationPoint", one["type"])) for one in own]


def _expected() -> tuple[list[str], list[str]]:
    """What the replay answers for the SYN: the trace on node 1 and on its peer."""
    answers = map(json.loads, (SCENARIO / "expect.jsonl").read_text().splitlines())
    syn = next(one for one in answers if one.get("verdict") == "TX_UNDERLAY")
    return syn["trace"], syn["peer"]["trace"]


def test_live_and_replayed_syn_pass_the_same_points(net):
    """The first SYN of a real curl is seen where the scenario's SYN is, on both nodes."""
    nodes = list(net.nodes.values())
    seen = [_follow(node) for node in nodes]
    for node in nodes:
        net.lab.wait_for("the stream", lambda node=node: _listeners(node) == 1)
    net.lab.spawn("nginx", sys.executable, "-m", "http.server", "80", log="http.log")
    net.lab.wait_for("it", lambda: ":80 " in net.lab.run("nginx", "ss", "-ltn").stdout)
    done = net.lab.run(
        "curl", "curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", URL
    )
    assert done.stdout == "200"
    net.lab.wait_for("the events", lambda: all(len(_points(one)) >= 4 for one in seen), timeout_s=5)
    assert tuple(_points(one) for one in seen) == _expected()


def _listeners(node: LabNode) -> int:
    with contextlib.closing(Client(node.socket)) as client:
        return int(client.get("/v1/status")["monitor"]["listeners"])
