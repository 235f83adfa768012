"""`fwd config check`, `show` and `diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fwd.api import views
from fwd.api.client import Client
from fwd.control import runner
from tests.api.daemon import LabDaemon
from tests.api.frames import NODE
from tests.cli.invoke import fwd


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    """The seed's node1."""
    path = tmp_path / "node1.yaml"
    path.write_text(NODE, encoding="utf-8")
    return path


def test_check_counts_what_it_would_load(node_file: Path):
    """A good file: one line on stdout."""
    ran = fwd("config", "check", str(node_file))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"{node_file}: ok, node node1, 1 endpoints, 1 peers, 8 ipcache entries, 2 policy entries\n"
    )


def test_check_counts_variables(node_file: Path, monkeypatch: pytest.MonkeyPatch):
    """As the daemon would."""
    monkeypatch.setenv("FWD_TUNNEL_PORT", "many")
    ran = fwd("config", "check", str(node_file))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("fwd: $FWD_TUNNEL_PORT: tunnel.port: 'many' has the wrong type")


def test_check_warns_of_what_is_ignored(node_file: Path, monkeypatch: pytest.MonkeyPatch):
    """And accepts the file all the same."""
    monkeypatch.setenv("FWD_TUNNEL_PROT", "8473")
    (node_file.parent / "node1.yaml.d").mkdir()
    (node_file.parent / "node1.yaml.d" / "b.yml").write_text("tunnel: {port: 1}\n")
    ran = fwd("config", "check", str(node_file))
    assert ran.code == 0
    first, second = ran.err.splitlines()
    assert first.startswith(f"warning: {node_file}.d/b.yml: ignored")
    assert second.startswith("warning: $FWD_TUNNEL_PROT: ignored")


@pytest.mark.parametrize("command", ["check", "show"])
def test_check_and_show_know_the_units_variables(
    node_file: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    """As its daemon would start; the shell's go over them, to try one."""
    monkeypatch.setattr(runner, "unit_environ", lambda _path: {"FWD_TUNNEL_PORT": "many"})
    ran = fwd("config", command, str(node_file))
    assert (ran.code, ran.out) == (1, "")
    assert "$FWD_TUNNEL_PORT: tunnel.port: 'many'" in ran.err
    monkeypatch.setenv("FWD_TUNNEL_PORT", "8473")
    assert fwd("config", command, str(node_file)).code == 0


def test_show_is_one_line_a_setting(node_file: Path):
    """In words a node file has, defaults included."""
    out = fwd("config", "show", str(node_file)).out.splitlines()
    assert "node.ip: 192.168.56.105" in out
    assert "node.pod_cidr: [10.244.0.0/24]" in out
    assert "features.fragments: true" in out
    flat = json.loads(fwd("config", "show", str(node_file), "-o", "json").out)
    assert flat["node.pod_cidr"] == ["10.244.0.0/24"]


def test_show_origin_tells_where_each_value_is_from(node_file: Path, monkeypatch):
    """File and line, variable, or default."""
    monkeypatch.setenv("FWD_TUNNEL_MTU", "1400")
    out = fwd("config", "show", str(node_file), "--origin").out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in out}
    assert rows["KEY"] == ["VALUE", "ORIGIN"]
    assert rows["tunnel.mtu"] == ["1400", "$FWD_TUNNEL_MTU"]
    assert rows["features.fragments"] == ["true", "default"]
    assert rows["node.name"][1].startswith(f"{node_file}:")
    found = json.loads(fwd("config", "show", str(node_file), "--origin", "-o", "json").out)
    assert found["tunnel.mtu"] == {"value": 1400, "origin": "$FWD_TUNNEL_MTU"}


@pytest.mark.parametrize("command", ["check", "show"])
def test_bad_file_is_one_line(tmp_path: Path, command: str):
    """On stderr, exit 1."""
    ran = fwd("config", command, str(tmp_path / "none.yaml"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1


def test_diff_reads_the_file_with_the_daemons_variables(lab: LabDaemon, monkeypatch):
    """Not with those of the shell that asks; the daemon tells those that are keys, no others."""
    config = views.config

    def of_the_daemon(agent):
        with monkeypatch.context() as patch:
            patch.delenv("FWD_TUNNEL_PORT")
            patch.setenv("FWD_TUNNEL_MTU", "1400")
            patch.setenv("FWD_DEPLOY_TOKEN", "s3cr3t")
            return config(agent)

    monkeypatch.setenv("FWD_TUNNEL_PORT", "8473")
    monkeypatch.setattr(views, "config", of_the_daemon)
    with Client(lab.socket) as client:
        assert client.get("/v1/config")["environ"] == {"FWD_TUNNEL_MTU": "1400"}
    ran = fwd("config", "diff", socket=lab.socket)
    assert (ran.code, ran.out) == (1, "- tunnel.mtu: auto\n+ tunnel.mtu: 1400\n")


def test_diff_is_what_a_reload_would_change(lab: LabDaemon, tmp_path: Path):
    """Nothing and 0; changes and 1; a bad file and 1 with a reason; without a daemon 3."""
    ran = fwd("config", "diff", socket=lab.socket)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    text = lab.agent.path.read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text + "features: {mss_clamp: true}\n")
    ran = fwd("config", "diff", str(other), socket=lab.socket)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out == "- features.mss_clamp: false\n+ features.mss_clamp: true\n"
    other.write_text("node: 1\n")
    ran = fwd("config", "diff", str(other), socket=lab.socket)
    assert ran.code == 1
    assert ran.err.startswith(f"fwd: {other}:1: node")
    assert fwd("config", "diff", str(other), socket=str(tmp_path / "none")).code == 3
