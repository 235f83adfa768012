"""curl to a ClusterIP with three nginx servers; services and slices come by ``fwd apply``.

a0 10.244.0.10, client -- TAP --+                             +-- TAP -- b0 10.244.2.10 nginx
                                fwd node1 == UDP 8472 == fwd node2
a1 10.244.0.11, nginx --- TAP --+                             +-- TAP -- b1 10.244.2.11 nginx
                                                              +-- TAP -- b2 10.244.2.12 client

Each nginx serves its name, and 16 MB as /large.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from fwd.control.lab import Lab
from tests.netns.net import PREFIX, Net
from tests.netns.programs import fetch, nginx
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.netns]

WEB, STICKY = "10.96.0.10", "10.96.0.11"
SERVERS = {"a1": "10.244.0.11", "b0": "10.244.2.10", "b1": "10.244.2.11"}
LARGE = bytes(range(256)) * 65536  # more than the buffers of both ends hold
CLIENTS = ("a0", "b2")

DOWNLOAD = """
i=0
while [ $i -lt $1 ]; do
    (curl -sf -m 120 --keepalive-time 1 -w "%{stderr}%{exitcode}" $0 2>$2-code-$i |
     (n=0; while [ ! -e $2-go ] && [ $n -lt 900 ]; do sleep 0.1; n=$((n+1)); done; cat >$2-$i)) &
    i=$((i+1))
done
wait
"""
"""Downloads side by side that stand still, their window closed, until a file says go."""


def service(name: str, address: str, **spec: Any) -> dict[str, Any]:
    """A Service whose backends are written down."""
    ports = [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"clusterIP": address, "ports": ports, **spec},
    }  # fmt: skip


def backends(name: str, states: dict[str, str]) -> dict[str, Any]:
    """Its EndpointSlice: pods, each ``ready`` or ``draining``."""
    conditions = {
        "ready": {"ready": True},
        "draining": {"ready": False, "serving": True, "terminating": True},
    }
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"port": 8080}],
        "endpoints": [
            {"addresses": [SERVERS[short]], "conditions": conditions[state]}
            for short, state in states.items()
        ],
    }  # fmt: skip


def apply(net: Net, *objects: dict[str, Any]) -> None:
    """``fwd apply -f`` on both nodes."""
    path = net.manifest("services.yaml", objects)
    for node in net.nodes.values():
        net.fwd(node, "apply", "-f", str(path))


@pytest.fixture(scope="module")
def lab_net() -> Iterator[Net]:
    """Two nodes, five pods, nginx in three of them."""
    files = two_nodes(
        [pod("node1", 0), pod("node1", 1)],
        [pod("node2", 0), pod("node2", 1), pod("node2", 2)],
    )
    with Lab(PREFIX) as lab:
        net = Net(lab)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        yield net


@pytest.fixture(scope="module")
def servers() -> dict[str, int]:
    """Pid of nginx by pod."""
    return {}


@pytest.fixture
def net(lab_net: Net, servers: dict[str, int]) -> Net:
    """All three servers run and are ready."""
    for short in SERVERS.keys() - servers.keys():
        servers[short] = nginx(lab_net, short, files={"large": LARGE})
    everybody = dict.fromkeys(SERVERS, "ready")
    affinity = {"clientIP": {"timeoutSeconds": 60}}
    apply(
        lab_net,
        service("web", WEB), backends("web", everybody),
        service("sticky", STICKY, sessionAffinity="ClientIP", sessionAffinityConfig=affinity),
        backends("sticky", everybody),
    )  # fmt: skip
    return lab_net


def flows_to(net: Net, short: str) -> list[dict[str, Any]]:
    """node1's conntrack entries of connections from a0 through a service to a pod."""
    rows = net.rows(net.nodes["node1"], "ct")
    return [row for row in rows if row["rev_nat_id"] and SERVERS[short] in
            (row["src_ip"], row["dst_ip"])]  # fmt: skip


class Downloads:
    """Nine downloads from the service by a0, each half-way and waiting."""

    def __init__(self, net: Net, name: str) -> None:
        """Start them, and wait until all are connected."""
        self._net = net
        self._folder = net.lab.directory / name
        self._folder.mkdir()
        self._shell = net.lab.spawn(
            "a0", "sh", "-c", DOWNLOAD, f"http://{WEB}/large", "9", str(self._folder / "got"),
            log=f"{name}.log",
        )  # fmt: skip
        net.lab.wait_for("nine connections", lambda: sum(self.shares().values()) == 9)

    def shares(self) -> dict[str, int]:
        """How many of them each server has now."""
        return {short: connections(self._net, short) for short in SERVERS}

    def end(self) -> Counter[str]:
        """Let them go on, and tell how they ended: "whole", or "error"."""
        (self._folder / "got-go").touch()
        self._shell.wait(timeout=120)
        codes = {n: int((self._folder / f"got-code-{n}").read_text()) for n in range(9)}
        for number, code in codes.items():
            assert ((self._folder / f"got-{number}").read_bytes() == LARGE) == (code == 0)
        return Counter("whole" if code == 0 else "error" for code in codes.values())


def spread(net: Net, name: str) -> tuple[Downloads, dict[str, int]]:
    """Downloads of which every server has at least one, and how many each has."""
    for attempt in range(6):
        downloads = Downloads(net, f"{name}{attempt}")
        shares = downloads.shares()
        if all(shares.values()):
            return downloads, shares
        assert downloads.end() == {"whole": 9}
    raise AssertionError("54 connections have left out a server, six times")


def connections(net: Net, short: str) -> int:
    """Connections that a server has with a0 now."""
    listing = net.lab.run(short, "ss", "-Htn", "state", "established", "src", ":8080")
    return listing.stdout.count("10.244.0.10")


def test_requests_of_both_nodes_spread_over_all_servers(net: Net) -> None:
    """A client on either node: each of 60 requests is answered, each server has its share."""
    for client in CLIENTS:
        count = Counter(fetch(net, client, f"http://{WEB}/", 60))
        assert set(count) == set(SERVERS), client
        assert min(count.values()) >= 5, client


def test_a_client_keeps_its_server(net: Net) -> None:
    """With sessionAffinity all connections of a client go to one server."""
    for client in CLIENTS:
        answers = set(fetch(net, client, f"http://{STICKY}/", 12))
        assert len(answers) == 1
        assert answers <= set(SERVERS)


def test_a_removed_server_takes_only_its_own_connections_along(net: Net) -> None:
    """b1 leaves the slice while nine downloads run: exactly its own end, at once and cleanly."""
    downloads, shares = spread(net, "removed")
    apply(net, backends("web", {"a1": "ready", "b0": "ready"}),
          backends("sticky", {"a1": "ready", "b0": "ready"}))  # fmt: skip
    net.lab.wait_for("the clean-up", lambda: flows_to(net, "b1") == [])
    assert flows_to(net, "a1")
    assert flows_to(net, "b0")
    assert set(fetch(net, "a0", f"http://{WEB}/", 20)) == {"a1", "b0"}
    assert downloads.end() == {"whole": shares["a1"] + shares["b0"], "error": shares["b1"]}


def test_a_draining_server_ends_its_work_and_gets_none(net: Net) -> None:
    """b0 is terminating while downloads run: all end whole, and no new connection goes there."""
    downloads, shares = spread(net, "draining")
    states = {"a1": "ready", "b0": "draining", "b1": "ready"}
    apply(net, backends("web", states), backends("sticky", states))
    for client in CLIENTS:
        assert set(fetch(net, client, f"http://{WEB}/", 20)) == {"a1", "b1"}
        assert fetch(net, client, f"http://{STICKY}/")[0] in {"a1", "b1"}
    assert downloads.shares() == shares, "none is disturbed"
    assert downloads.end() == {"whole": 9}


def test_a_killed_server_harms_no_other_connection(net: Net, servers: dict[str, int]) -> None:
    """A server is killed and leaves the slice: its downloads end, the others end whole."""
    downloads, shares = spread(net, "killed")
    net.lab.end([servers.pop("a1")], grace_s=0)
    refused = fetch(net, "a0", f"http://{WEB}/", 20)
    apply(net, backends("web", {"b0": "ready", "b1": "ready"}),
          backends("sticky", {"b0": "ready", "b1": "ready"}))  # fmt: skip
    assert set(refused) <= {"-", "b0", "b1"}
    net.lab.wait_for("the clean-up", lambda: flows_to(net, "a1") == [])
    assert set(fetch(net, "a0", f"http://{WEB}/", 20)) == {"b0", "b1"}
    assert downloads.end() == {"whole": shares["b0"] + shares["b1"], "error": shares["a1"]}
