"""curl to ClusterIPs: three servers on both nodes, one taken away, affinity, hairpin.

a0 10.244.0.10, client, policed -- TAP --+                             +-- TAP -- b0 10.244.2.10
                                         fwd node1 == UDP 8472 == fwd node2
a1 10.244.0.11 ------------------- TAP --+                             +-- TAP -- b1 10.244.2.11

Every pod serves its own name on port 8080. web = a1, b0, b1; sticky = the same with affinity;
self = a0 alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fwd.control.lab import Lab
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.netns]

WEB, STICKY, SELF = "10.96.0.10", "10.96.0.11", "10.96.0.12"
ADDRESS = {"a0": "10.244.0.10", "a1": "10.244.0.11", "b0": "10.244.2.10", "b1": "10.244.2.11"}
LOOPBACK = "169.254.42.1"


def service(name: str, frontend: str, pods: list[str], **fields: Any) -> dict[str, Any]:
    """A service row with pods as backends."""
    backends = [{"ip": ADDRESS[one], "port": 8080} for one in pods]
    return {"name": name, "frontend": frontend, "port": 80, "backends": backends, **fields}


def node1_file(web: list[str]) -> dict[str, Any]:
    """node1: its pod a0 may only reach the servers, and takes nothing."""
    policed = {"enforce": {"ingress": True, "egress": True}}
    data = _files(policed)[0]
    data["policy"] = [
        {"endpoint": "default/a0", "direction": "egress", "identity": identity, "proto": "tcp",
         "port": 8080, "action": "allow"}
        for identity in (25001, 26000, 26001)
    ]  # fmt: skip
    sticky = {"flags": ["affinity"], "affinity_timeout_s": 60}
    data["services"] = [
        service("default/web", WEB, web),
        service("default/sticky", STICKY, ["a1", "b0", "b1"], **sticky),
        service("default/self", SELF, ["a0"]),
    ]
    return data


def _files(a0: dict[str, Any]) -> list[dict[str, Any]]:
    return two_nodes([pod("node1", 0, **a0), pod("node1", 1)], [pod("node2", 0), pod("node2", 1)])


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    """Two nodes, four pods, a server in each."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(node1_file(["a1", "b0", "b1"])), net.add_node(_files({})[1])]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        for short in ADDRESS:
            _serve(net, short, tmp_path_factory.mktemp(short))
        yield net


def _serve(net: Net, short: str, directory: Path) -> None:
    (directory / "index.html").write_text(short + "\n")
    net.lab.spawn(
        short, sys.executable, "-u", "-m", "http.server", "--directory", str(directory), "8080",
        log=f"{short}.http.log",
    )  # fmt: skip
    net.lab.wait_for(
        f"the server of {short}", lambda: ":8080" in net.lab.run(short, "ss", "-ltn").stdout
    )


def ask(net: Net, frontend: str, times: int) -> list[str]:
    """What a0 gets for so many requests, each on a connection of its own; "-" = none."""
    script = "i=0; while [ $i -lt $1 ]; do curl -sf -m 4 http://$0/ || echo -; i=$((i+1)); done"
    return net.lab.run("a0", "sh", "-c", script, frontend, str(times), timeout_s=120).stdout.split()


def test_requests_spread_over_the_servers_of_both_nodes(net: Net) -> None:
    """Of 60 requests all are answered, and each of the three servers has its share."""
    count = Counter(ask(net, WEB, 60))
    assert set(count) == {"a1", "b0", "b1"}
    assert min(count.values()) >= 5


def test_a_client_sticks_to_its_server(net: Net) -> None:
    """With affinity all requests of a pod go to one server."""
    assert len(set(ask(net, STICKY, 15))) == 1


def test_a_pod_reaches_itself_through_a_service(net: Net) -> None:
    """The hairpin works although no policy allows it; the server sees the loopback address."""
    assert ask(net, SELF, 3) == ["a0"] * 3
    seen = net.lab.log("a0.http.log")
    assert seen.count(f"{LOOPBACK} - -") == 3
    direct = net.lab.run(
        "a1", "curl", "-s", "-m", "1", f"http://{ADDRESS['a0']}:8080/", check=False
    )
    assert direct.returncode != 0, "others are still kept out"


def test_a_large_answer_comes_through_the_hairpin(net: Net, tmp_path: Path) -> None:
    """Partial checksums and super-packets are translated both ways: 8 MB arrive whole."""
    data = bytes(range(256)) * 32768
    (tmp_path / "large").write_bytes(data)
    server = net.lab.spawn(
        "a0", sys.executable, "-m", "http.server", "--directory", str(tmp_path), "8081",
        log="large.log",
    )  # fmt: skip
    node = net.nodes["node1"]
    row = service("default/large", "10.96.0.13", []) | {
        "backends": [{"ip": ADDRESS["a0"], "port": 8081}]
    }
    file = node1_file(["a1", "b0", "b1"])
    net.write(node, file | {"services": [*file["services"], row]})
    net.reload(node)
    net.lab.wait_for("the service", lambda: "10.96.0.13" in net.fwd(node, "service", "list"))
    got = tmp_path / "got"
    net.lab.run("a0", "curl", "-sSf", "--retry", "5", "--retry-connrefused", "-m", "60", "-o",
                str(got), "http://10.96.0.13/large", timeout_s=90)  # fmt: skip
    assert got.read_bytes() == data
    net.lab.end([server.pid])


def test_a_removed_server_gets_nothing_more(net: Net) -> None:
    """One backend goes by SIGHUP while requests run: afterwards the others answer them all."""
    node = net.nodes["node1"]
    running = net.lab.spawn(
        "a0", "sh", "-c", "while sleep 0.02; do curl -s -m 4 http://$0/; done", WEB, log="loop.log"
    )
    net.write(node, node1_file(["a1", "b0"]))
    net.reload(node)
    net.lab.wait_for(
        "the reload", lambda: ADDRESS["b1"] not in net.fwd(node, "service", "get", "default/web")
    )
    assert set(ask(net, WEB, 30)) == {"a1", "b0"}
    net.lab.end([running.pid])
    services = {row["name"]: row for row in net.rows(node, "service")}
    number = services["default/web"]["rev_nat_id"]
    flows = [row for row in net.rows(node, "ct") if row["rev_nat_id"] == number]
    assert flows
    assert not any(ADDRESS["b1"] in (row["src_ip"], row["dst_ip"]) for row in flows)
