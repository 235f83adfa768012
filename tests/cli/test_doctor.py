"""`fwd doctor`: its lines, its JSON and its exit code."""

from __future__ import annotations

import json
import socket
import time
from importlib import import_module
from pathlib import Path

import pytest

from fwd.api import views
from fwd.control import runner
from tests.api.daemon import LabDaemon
from tests.cli.invoke import fwd

doctor = import_module("fwd.cli.doctor")  # the package's name is the command
ON_LO = (
    "node: {name: n, ip: 127.0.0.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}\n"
    "tunnel: {port: 18472}\n"
)


def test_each_line_is_level_subject_and_advice(lab: LabDaemon):
    """Node1 of the seed is not this host: its address is missing, so the exit code is 1."""
    ran = fwd("doctor", "--config", str(lab.agent.path), socket=lab.socket)
    lines = ran.out.splitlines()
    assert ran.code == 1
    assert all(line[:6] in {"ok    ", "warn  ", "fail  "} for line in lines)
    assert lines[0].startswith("ok    daemon: pid ")
    assert lines[1] == f"ok    node file: {lab.agent.path}, node node1"
    assert any(line.startswith("fail  underlay: 192.168.56.105 is on no device") for line in lines)


def test_bad_node_file_is_a_failure_and_the_end(tmp_path: Path):
    """What cannot be read cannot be compared with the host; no daemon is a warning only."""
    ran = fwd(
        "doctor", "--config", str(tmp_path / "none"), "-o", "json", socket=str(tmp_path / "s")
    )
    rows = json.loads(ran.out)["findings"]
    assert ran.code == 1
    assert [(row["what"], row["level"]) for row in rows] == [
        ("daemon", "warn"), ("node file", "fail"),
    ]  # fmt: skip


def test_endpoints_that_are_not_ready_are_a_warning(lab: LabDaemon, monkeypatch):
    """With the command that says more."""
    monkeypatch.setattr(lab.agent, "endpoint_states", lambda: {2825: "gone"})
    ran = fwd("doctor", "--config", str(lab.agent.path), socket=lab.socket)
    assert "0 of 1 endpoints ready; see `fwd endpoint list`" in ran.out.splitlines()[0]


@pytest.mark.netns
def test_variables_are_the_daemons(lab: LabDaemon, monkeypatch, tmp_path: Path):
    """Of a running daemon its own, else its unit's; the shell's say nothing of either."""
    monkeypatch.setattr(views, "config", lambda _agent: {"environ": {"FWD_TUNNEL_PORT": "many"}})
    ran = fwd("doctor", "--config", str(lab.agent.path), socket=lab.socket)
    assert "fail  node file: $FWD_TUNNEL_PORT: tunnel.port: 'many'" in ran.out
    monkeypatch.setattr(runner, "unit_environ", lambda _path: {"FWD_TUNNEL_MTU": "wide"})
    ran = fwd("doctor", "--config", str(lab.agent.path), socket=str(tmp_path / "none"))
    assert "fail  node file: $FWD_TUNNEL_MTU: tunnel.mtu: 'wide'" in ran.out


@pytest.mark.netns
def test_silent_daemon_is_a_failure_and_no_end(silent: str, tmp_path: Path, monkeypatch):
    """Somebody accepts and nobody answers: said after seconds, and the rest is looked at."""
    monkeypatch.setattr(doctor, "_ANSWER_S", 0.2)
    path = tmp_path / "n.yaml"
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        path.write_text(ON_LO.replace("18472", str(held.getsockname()[1])))
        ran = fwd("doctor", "--config", str(path), socket=silent)
    assert time.monotonic() - began < 10
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith("fail  daemon: GET /v1/status: no answer from ")
    assert "journalctl -u fwd" in lines[0]
    assert any("the silent daemon's?" in line for line in lines)


@pytest.mark.netns
def test_all_is_well_is_exit_0(tmp_path: Path):
    """Warnings do not fail."""
    path = tmp_path / "n.yaml"
    path.write_text(ON_LO)
    ran = fwd("doctor", "--config", str(path), socket=str(tmp_path / "none"))
    assert ran.code == 0, ran.out
