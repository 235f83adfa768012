"""The API over its socket: reads, pages, the stream, reload, and its listeners' life."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import stat
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import structlog
import uvloop

from fwd.api.client import ApiError, Client
from fwd.api.server import SocketTakenError, serving
from tests.api.daemon import LabAgent, LabDaemon, lab_daemon
from tests.api.frames import NODE, syn, udp

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client(lab: LabDaemon) -> Iterator[Client]:
    """A client of the lab's daemon."""
    with Client(lab.socket) as one:
        yield one


def status_of(path: str, target: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """A raw request: the status and the JSON body."""
    connection = http.client.HTTPConnection("fwd")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(path)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


# ---- reads ----


def test_status(client: Client, lab: LabDaemon):
    """What `fwd status` and monitoring scripts read."""
    answer = client.get("/v1/status")
    assert answer["node"] == {
        "name": "node1", "ip": "192.168.56.105", "pod_cidr": ["10.244.0.0/24"],
        "router_ip": ["10.244.0.150"],
    }  # fmt: skip
    assert answer["endpoints"] == {"total": 1, "states": {"ready": 1}}
    assert answer["tables"]["ct_tcp"]["cap"] == 8192
    assert answer["monitor"] == {"listeners": 0, "lost": 0}
    assert answer["state"] == "running", "the agent's own keys stand beside ours"
    assert (answer["pid"], answer["revision"], answer["peers"]) == (os.getpid(), 1, 1)
    assert 192 <= answer["uptime_s"] < 300
    assert answer["config"] == str(lab.agent.path)


@pytest.mark.parametrize("name", ["2825", "default/curl"])
def test_endpoint_by_id_and_name(client: Client, name: str):
    """One endpoint joins the table's row, its addresses and the node file."""
    assert client.get(f"/v1/endpoint/{name}") == {
        "id": 2825,
        "name": "default/curl",
        "identity": 25001,
        "addresses": ["10.244.0.108"],
        "ifindex": 75,
        "mac": "96:86:44:a6:37:01",
        "node_mac": "d2:ad:65:4d:d0:01",
        "state": "ready",
        "labels": {"app": "curl"},
        "ifname": "lxca7eadf015921",
        "netns": None,
        "enforcement": {"ingress": False, "egress": True},
    }


def test_endpoint_list_has_the_same_rows(client: Client):
    """List and get never differ."""
    assert list(client.rows("/v1/endpoint")) == [client.get("/v1/endpoint/2825")]


@pytest.mark.parametrize(
    ("ip", "prefix"),
    [("10.244.2.171", "10.244.2.171/32"), ("10.244.2.9", "10.244.2.0/24"), ("fd00::1", "::/0")],
)
def test_ipcache_get_is_longest_prefix(client: Client, ip: str, prefix: str):
    """The API asks the datapath's own lookup."""
    assert client.get("/v1/ipcache", ip=ip)["prefix"] == prefix


def test_ct_lists_both_maps(client: Client, lab: LabDaemon):
    """TCP and the rest are two maps; a companion entry is in the second."""
    lab.send(syn())
    (tcp,) = client.rows("/v1/ct")
    (companion,) = client.rows("/v1/ct", map="any")
    assert (tcp["proto"], tcp["src_ip"], tcp["src_port"], tcp["dst_ip"], tcp["dst_port"]) == (
        "TCP", "10.244.0.108", 43512, "10.244.2.171", 80,
    )  # fmt: skip
    assert (companion["proto"], companion["related"]) == ("ICMP", True)


def test_policy_names_the_rules(client: Client, lab: LabDaemon):
    """Every map entry tells where it comes from and what it has counted."""
    lab.send(syn())
    ingress, egress = client.rows("/v1/policy/default/curl")
    assert (ingress["identity_name"], ingress["port"]) == ("any", "any")
    assert ingress["rule"]["kind"] == "default-allow"
    assert (egress["identity"], egress["proto"], egress["port"]) == (25002, "tcp", "80")
    assert egress["packets"] == 1
    assert egress["rule"]["line"] == 22


def test_node_lists_itself_first(client: Client):
    """This node, then its peers."""
    own, peer = client.rows("/v1/node")
    assert (own["name"], own["self"], own["ip"]) == ("node1", True, "192.168.56.105")
    assert (peer["name"], peer["self"], peer["pod_cidr"]) == ("node2", False, ["10.244.2.0/24"])


def test_metrics_as_json_and_as_text(client: Client, lab: LabDaemon):
    """Rows for people, exposition format for scrapers, the same counter behind both."""
    lab.send(udp())
    (row,) = (one for one in client.rows("/v1/metrics") if one["code"] == 133)
    assert row == {
        "reason": "Policy denied", "code": 133, "direction": "EGRESS", "packets": 1, "bytes": 42,
    }  # fmt: skip
    text = client.text("/metrics")
    assert 'fwd_drop_count_total{direction="EGRESS",reason="Policy denied"} 1.0' in text


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/v1/frob", 404, "no such resource: /v1/frob"),
        ("/v1/endpoint/9", 404, "no endpoint '9'; see: fwd endpoint list"),
        ("/v1/policy/x/y", 404, "no endpoint 'x/y'; see: fwd endpoint list"),
        ("/v1/map/frob", 404, ("no map 'frob'; there are: cilium_ipcache, cilium_lxc, "
         "cilium_ct4_global, cilium_ct_any4_global, cilium_lb4_services_v2")),
        ("/v1/ipcache?ip=frob", 400, "'frob' is not an IP address, write it like 10.244.2.171"),
        ("/v1/ct?limit=5000", 400, "limit='5000' is not a number from 0 to 4096"),
        ("/v1/ct?cursor=-1", 400, "cursor='-1' is not a number from 0 to 18446744073709551615"),
        ("/v1/monitor?type=x", 400, ("'x' is no event type; use one of drop, policy-verdict, step, "
         "trace, verdict")),
        ("/v1/reload", 405, "405: Method Not Allowed"),
    ],
)  # fmt: skip
def test_refusals_are_json(lab: LabDaemon, target: str, status: int, text: str):
    """Each refusal has its status and says what would be right."""
    assert status_of(lab.socket, target) == (status, {"error": text})


def test_bug_in_a_handler_is_json_too(lab: LabDaemon, monkeypatch: pytest.MonkeyPatch):
    """Nothing that goes wrong inside reaches the client as HTML or silence."""

    def broken() -> dict[int, str]:
        raise RuntimeError("boom")

    monkeypatch.setattr(lab.agent, "endpoint_states", broken)
    status, body = status_of(lab.socket, "/v1/status")
    assert (status, body) == (
        500, {"error": "GET /v1/status failed: RuntimeError('boom'), see the log"},
    )  # fmt: skip


# ---- pages ----


def test_pages_are_bounded_and_complete(client: Client, lab: LabDaemon):
    """3000 connections come in pages of at most 4096 rows, each once."""
    for start in range(0, 3000, 250):
        lab.call(lambda base=start: [lab.agent.dp.run(10**9, _burst(base))])
    first = client.get("/v1/ct")
    assert len(first["rows"]) == 1024
    assert first["next"] != 0
    ports = [row["src_port"] for row in client.rows("/v1/ct")]
    assert sorted(ports) == list(range(1024, 4024))


def _burst(base: int) -> list[Any]:
    from fwd.datapath.binding import Packet  # noqa: PLC0415

    return [Packet(syn(sport=1024 + base + n), 2825) for n in range(250)]


# ---- the stream ----


def test_monitor_streams_and_lets_go(client: Client, lab: LabDaemon):
    """Records arrive as they happen; a client that goes away leaves nothing behind."""
    stream = Client(lab.socket).stream("/v1/monitor", type=["drop", "verdict"])
    first: list[dict[str, Any]] = []

    import threading  # noqa: PLC0415

    reader = threading.Thread(target=lambda: first.append(next(stream)))
    reader.start()
    lab.wait_listeners(1)
    assert client.get("/v1/status")["monitor"]["listeners"] == 1
    lab.send(udp())
    reader.join(10)
    assert first[0]["type"] == "policy-verdict"
    assert first[0]["rule"]["kind"] == "default-deny"
    assert next(stream)["type"] == "drop"
    stream.close()
    lab.wait_listeners(0)
    assert lab.call(lambda: lab.agent.dp.settings.monitor_mask) == 1


def test_monitor_ends_with_the_daemon(tmp_path: Path):
    """At the daemon's end the stream ends too, at once and in order."""
    import threading  # noqa: PLC0415

    with lab_daemon(tmp_path) as lab:
        got: list[dict[str, Any]] = []
        reader = threading.Thread(
            target=lambda: got.extend(Client(lab.socket).stream("/v1/monitor", type="drop,trace"))
        )
        reader.start()
        lab.wait_listeners(1)
        lab.send(udp())
    reader.join(10)
    assert not reader.is_alive()
    assert [one["type"] for one in got] in (["trace", "drop"], [])


# ---- the order ----


def test_reload_applies_the_file(client: Client, lab: LabDaemon):
    """POST reads the node file again and answers with what the agent reports."""
    text = lab.agent.path.read_text(encoding="utf-8")
    lab.agent.path.write_text(
        text.replace("ipcache:\n", "ipcache:\n  - {prefix: 203.0.113.0/24, identity: 2}\n"),
        encoding="utf-8",
    )
    assert client.post("/v1/reload")["revision"] == 2
    assert client.get("/v1/ipcache", ip="203.0.113.7")["prefix"] == "203.0.113.0/24"


def test_reload_of_a_bad_file_changes_nothing(client: Client, lab: LabDaemon):
    """The error names file and line, for the journal's readers too; the old state stays."""
    text = lab.agent.path.read_text(encoding="utf-8")
    lab.agent.path.write_text(text + "frobnicate: 1\n", encoding="utf-8")
    refused = pytest.raises(ApiError, match=r"nothing was changed: .*node.yaml:27: frobnicate")
    with structlog.testing.capture_logs() as logs, refused:
        client.post("/v1/reload")
    ((level, error),) = ((one["log_level"], one["error"]) for one in logs)
    assert level == "error"
    assert "node.yaml:27: frobnicate" in error
    assert client.get("/v1/status")["revision"] == 1


# ---- listening ----


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_socket_is_the_groups_and_goes_away(tmp_path: Path, loop_factory: Any):
    """0660 while it lives, nothing left afterwards, on both loops."""
    with lab_daemon(tmp_path, loop_factory=loop_factory or asyncio.new_event_loop) as lab:
        assert stat.S_IMODE(os.stat(lab.socket).st_mode) == 0o660  # noqa: PTH116
        with Client(lab.socket) as client:
            assert client.get("/v1/status")["node"]["name"] == "node1"
    assert not Path(lab.socket).exists()


def test_socket_of_a_living_daemon_is_not_taken(lab: LabDaemon):
    """A second daemon is refused by name and the first goes on."""

    async def second() -> None:
        async with serving(lab.agent):
            pass

    with pytest.raises(SocketTakenError, match=f"another daemon answers on {lab.socket}: stop it"):
        anyio.run(second)
    with Client(lab.socket) as client:
        assert client.get("/v1/status")["monitor"]["listeners"] == 0


def test_socket_of_a_dead_daemon_is_taken_over(tmp_path: Path):
    """A kill -9 leaves a socket file; the next start removes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "fwd.sock"))
    with lab_daemon(tmp_path) as lab, Client(lab.socket) as client:
        assert client.get("/v1/status")["revision"] == 1


def test_metrics_listener_serves_metrics_only(tmp_path: Path):
    """Where the node file has a metrics section, scrapers get /metrics over TCP."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = NODE + f'metrics: {{listen: "127.0.0.1:{port}"}}\n'
    with lab_daemon(tmp_path, text):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert b"fwd_endpoint 1.0" in answer.read()
        assert _raw_status(port, "/v1/status") == 404


def _raw_status(port: int, target: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", target)
        return connection.getresponse().status
    finally:
        connection.close()


def test_taken_metrics_port_is_an_error_and_leaves_no_socket(tmp_path: Path):
    """A start that fails half-way takes its listeners back."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        path = tmp_path / "node.yaml"
        listen = f'metrics: {{listen: "127.0.0.1:{taken.getsockname()[1]}"}}\n'
        path.write_text(
            NODE.replace("SOCKET", str(tmp_path / "fwd.sock")) + listen, encoding="utf-8"
        )
        agent = LabAgent(path)

        async def start() -> None:
            async with serving(agent):
                pass

        with pytest.raises(OSError, match="in use"):
            anyio.run(start)
        agent.dp.close()
    assert not (tmp_path / "fwd.sock").exists()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_listener_of_systemd_is_used_and_left(tmp_path: Path, loop_factory: Any):
    """Clients that come before the start are answered; the socket outlives the daemon."""
    path = str(tmp_path / "fwd.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as kept:
        kept.bind(path)
        kept.listen()
        for _ in range(2):  # and once more, as after a restart
            early = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            early.connect(path)
            early.sendall(b"GET /v1/status HTTP/1.1\r\nHost: fwd\r\nConnection: close\r\n\r\n")
            with lab_daemon(tmp_path, loop_factory=loop_factory, listener=kept.dup()) as lab:
                early.settimeout(10)
                assert early.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
                early.close()
                with Client(lab.socket) as client:
                    assert client.get("/v1/status")["state"] == "running"
            assert Path(path).is_socket()
