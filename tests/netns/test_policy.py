"""Policies by ``fwd apply -f``: what curl sees on both nodes, and what ``fwd trace`` says of it.

a0 10.244.0.10 client  --+                             +-- b0 10.244.2.10 web
                         fwd node1 == UDP 8472 == fwd node2
a1 10.244.0.11 stranger -+                             +-- b1 10.244.2.11 client
a2 10.244.0.12 web      -+                             +-- b2 10.244.2.12 stranger

Every web serves its name on 8080 and 8081.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from fwd.api.client import Client
from fwd.cli.trace import EXIT_DROPPED
from fwd.control.lab import Lab
from fwd.model.enums import Drop
from tests.netns.net import PREFIX, Net
from tests.netns.programs import nginx, status
from tests.netns.worlds import two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.control.topology import LabNode

pytestmark = [pytest.mark.netns]

ROLES = {
    "a0": "client", "a1": "stranger", "a2": "web",
    "b0": "web", "b1": "client", "b2": "stranger",
}  # fmt: skip
ADDRESS = {f"{node}{i}": f"{net}.{10 + i}" for node, net in (("a", "10.244.0"), ("b", "10.244.2"))
           for i in range(3)}  # fmt: skip
PORTS = (8080, 8081)
TIMED_OUT = 28
DENIED = {Drop.POLICY_DENIED.name, Drop.POLICY_DENY.name}

PODS = [
    {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": short, "labels": {"role": role}, "annotations": {"fwd.io/ip": ADDRESS[short]},
        },
        "spec": {"nodeName": "node1" if short[0] == "a" else "node2"},
    }
    for short, role in ROLES.items()
]  # fmt: skip

WEB_TAKES_CLIENTS = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "web-takes-clients"},
    "spec": {
        "podSelector": {"matchLabels": {"role": "web"}},
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"role": "client"}}}],
            "ports": [{"protocol": "TCP", "port": 8080}],
        }],
    },
}  # fmt: skip

CLIENTS_ASK_WEB = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "clients-ask-web"},
    "spec": {
        "podSelector": {"matchLabels": {"role": "client"}},
        "policyTypes": ["Egress"],
        "egress": [{
            "to": [{"podSelector": {"matchLabels": {"role": "web"}}}],
            "ports": [{"protocol": "TCP", "port": 8080, "endPort": 8090}],
        }],
    },
}  # fmt: skip

STRANGERS_KEEP_OUT = {
    "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "strangers-keep-out"},
    "spec": {
        "endpointSelector": {"matchLabels": {"role": "stranger"}},
        "egress": [{"toEntities": ["all"]}],
        "egressDeny": [{
            "toEndpoints": [{"matchLabels": {"role": "web"}}],
            "toPorts": [{"ports": [{"port": "8081", "protocol": "TCP"}]}],
        }],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def lab_net() -> Iterator[Net]:
    """Six pods whose identities follow from their labels, no policy."""
    files = two_nodes([], [])
    for data, letter, first in zip(files, "ab", (1000, 2000), strict=True):
        data["endpoints"] = [
            {"name": f"default/{letter}{i}", "id": first + i, "ip": ADDRESS[f"{letter}{i}"]}
            for i in range(3)
        ]
        data["manifests"] = ["pods.yaml"]
    with Lab(PREFIX) as lab:
        net = Net(lab)
        net.manifest("pods.yaml", PODS)
        nodes = [net.add_node(data) for data in files]
        net.wire(*nodes)
        for node in nodes:
            net.start(node)
        for short, port in itertools.product(("a2", "b0"), PORTS):
            nginx(net, short, port)
        yield net


def _order(net: Net, *policies: dict[str, Any]) -> None:
    for policy in policies:
        path = net.manifest(f"{policy['metadata']['name']}.yaml", [policy])
        for node in net.nodes.values():
            net.fwd(node, "apply", "-f", str(path))


@pytest.fixture
def net(lab_net: Net) -> Iterator[Net]:
    """The lab; policies a test has applied are deleted behind it."""
    yield lab_net
    objects = (WEB_TAKES_CLIENTS, CLIENTS_ASK_WEB, STRANGERS_KEEP_OUT)
    text = lab_net.manifest("all.yaml", objects).read_text()
    for node in lab_net.nodes.values():
        with contextlib.closing(Client(node.socket)) as client:
            for action in ("apply", "delete"):
                file = {"name": "all.yaml", "text": text, "namespace": "default"}
                client.post("/v1/manifests", {"action": action, "files": [file]})


Ask = tuple[str, str, int]
"""Client, server and port."""


def asks(net: Net, *wanted: Ask) -> dict[Ask, str]:
    """What curl makes of each: "answered", or "denied" when nothing comes back; side by side."""

    def one(ask: Ask) -> str:
        client, server, port = ask
        code, http = status(net, client, f"http://{ADDRESS[server]}:{port}/", max_s=3)
        assert (code, http) in {(0, "200"), (TIMED_OUT, "000")}
        return "answered" if code == 0 else "denied"

    with ThreadPoolExecutor(len(wanted)) as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def node_of(net: Net, short: str) -> LabNode:
    """The node of a pod."""
    return net.nodes["node1" if short[0] == "a" else "node2"]


def first_packet(net: Net, ask: Ask) -> dict[str, Any]:
    """The trace of a connection's first packet: the last one that sees it, here or there."""
    client, server, port = ask
    here, there = node_of(net, client), node_of(net, server)
    told = net.trace(here, f"default/{client} -> {ADDRESS[server]}:{port}/tcp")
    if told["result"] != "forwarded" or here is there:
        return told
    return net.trace(there, f"peer {here.name}/{ADDRESS[client]} -> default/{server}:{port}/tcp")


def test_without_a_policy_everybody_is_answered(net: Net) -> None:
    """Pods that no policy selects talk to each other, on one node and across."""
    wanted = list(itertools.product(("a0", "a1", "b1", "b2"), ("a2", "b0"), (8081,)))
    assert asks(net, *wanted) == dict.fromkeys(wanted, "answered")


def test_ingress_lets_in_whom_it_names_and_no_other(net: Net) -> None:
    """Clients reach the port of the rule on both nodes; strangers, and other ports, time out."""
    _order(net, WEB_TAKES_CLIENTS)
    before = {name: net.drops(node, Drop.POLICY_DENIED) for name, node in net.nodes.items()}
    expected = {}
    for server in ("a2", "b0"):
        for client in ("a0", "b1"):
            expected[client, server, 8080] = "answered"
            expected[client, server, 8081] = "denied"
        for client in ("a1", "b2"):
            expected[client, server, 8080] = "denied"
    assert asks(net, *expected) == expected
    for name, node in net.nodes.items():  # each where its server is
        assert net.drops(node, Drop.POLICY_DENIED) >= before[name] + 4


def test_egress_lets_out_where_it_names_and_nowhere_else(net: Net) -> None:
    """Clients get to the range of ports on webs of both nodes, to no other pod, and not by ping."""
    _order(net, CLIENTS_ASK_WEB)
    wanted = list(itertools.product(("a0", "b1"), ("a2", "b0"), PORTS))
    assert asks(net, *wanted) == dict.fromkeys(wanted, "answered")
    for client, other in (("a0", "a1"), ("b1", "a1"), ("a0", "b2"), ("a0", "b0")):
        before = net.drops(node_of(net, client), Drop.POLICY_DENIED)
        assert net.ping(client, ADDRESS[other], "-W", "1").returncode != 0
        assert net.drops(node_of(net, client), Drop.POLICY_DENIED) == before + 1
    assert net.reaches("a1", ADDRESS["a0"]), "answers to what comes in are not egress"


def test_a_deny_rule_beats_the_allow_around_it(net: Net) -> None:
    """Strangers may go anywhere, but not to the one port: counted as denied by denylist."""
    _order(net, STRANGERS_KEEP_OUT)
    before = {name: net.drops(node, Drop.POLICY_DENY) for name, node in net.nodes.items()}
    pairs = list(itertools.product(("a1", "b2"), ("a2", "b0")))
    expected = {(*pair, 8080): "answered" for pair in pairs}
    expected |= {(*pair, 8081): "denied" for pair in pairs}
    assert asks(net, *expected) == expected
    for name, node in net.nodes.items():
        assert net.drops(node, Drop.POLICY_DENY) >= before[name] + 2


def test_the_monitor_names_the_rule_of_every_denial(net: Net) -> None:
    """A deny is told with its policy, file and line; a default deny with who selects the pod."""
    _order(net, WEB_TAKES_CLIENTS, STRANGERS_KEEP_OUT)
    seen = {name: net.watch(node, "drop") for name, node in net.nodes.items()}
    assert set(asks(net, ("a1", "b0", 8081), ("a1", "b0", 8080)).values()) == {"denied"}
    for name, reason, policy, port in (
        ("node1", "Policy denied by denylist", "strangers-keep-out", 8081),
        ("node2", "Policy denied", "web-takes-clients", 8080),
    ):
        words = f"xx drop ({reason})", f"default/{policy}", f"{policy}.yaml:", f"10.244.2.10:{port}"
        lines = seen[name].read_text().splitlines()
        assert any(all(word in line for word in words) for line in lines), lines


def test_the_command_names_the_rule_too(net: Net) -> None:
    """``fwd trace`` prints the verdict with the rule, and says with its exit code: dropped."""
    _order(net, STRANGERS_KEEP_OUT)
    argv = (sys.executable, "-m", "fwd", "--socket", str(net.nodes["node1"].socket), "trace")
    done = net.lab.run(None, *argv, f"default/a1 -> {ADDRESS['b0']}:8081/tcp", check=False)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == EXIT_DROPPED
    assert last.startswith("verdict: ")
    assert "default/strangers-keep-out" in last
    assert "strangers-keep-out.yaml:" in last


def test_trace_foretells_what_curl_sees(net: Net) -> None:
    """Every client, server and port, all policies: the trace's result is curl's, rule and all."""
    _order(net, WEB_TAKES_CLIENTS, CLIENTS_ASK_WEB, STRANGERS_KEEP_OUT)
    wanted = list(itertools.product(("a0", "a1", "b1", "b2"), ("a2", "b0"), PORTS))
    told = {ask: first_packet(net, ask) for ask in wanted}
    denied = {ask for ask, answer in told.items() if answer["result"] == "dropped"}
    assert len(denied) == 12, "clients reach 8080 of both webs, and that is all"
    for ask in denied:
        assert told[ask]["packet"]["drop"]["name"] in DENIED
        assert told[ask]["packet"]["rule"] is not None
    assert asks(net, *wanted) == {ask: "denied" if ask in denied else "answered" for ask in wanted}
