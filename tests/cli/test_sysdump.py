"""`fwd sysdump`: what is in the archive, and that it is made whatever is broken."""

from __future__ import annotations

import json
import stat
import tarfile
from pathlib import Path

from fwd.api import views
from fwd.config import show
from fwd.config.show import origin, settings
from tests.api.daemon import LabDaemon, lab_daemon
from tests.api.frames import NODE
from tests.cli.invoke import fwd


def contents(path: Path) -> dict[str, str]:
    """The archive's files by name."""
    with tarfile.open(path) as tar:
        found = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("fwd-sysdump/")] = file.read().decode()
        return found


def test_dump_has_everything_a_helper_asks_for(lab: LabDaemon, tmp_path: Path, monkeypatch):
    """Status, tables, settings without secrets, metrics, versions, findings, the host's links."""

    def with_secret(node):
        return settings(node) | {"store.password": "hunter2"}

    monkeypatch.setattr(views, "settings", with_secret)
    monkeypatch.setattr(show, "settings", with_secret)
    monkeypatch.setattr(show, "origin", lambda node: origin(node) | {"store.password": "x:1"})
    lab.send()
    out = tmp_path / "dump.tar.gz"
    ran = fwd("sysdump", "--config", str(lab.agent.path), "--out", str(out), socket=lab.socket)
    assert (ran.code, ran.out) == (0, f"{out}\n")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    files = contents(out)
    assert json.loads(files["status.json"])["node"]["name"] == "node1"
    assert json.loads(files["versions.json"])["libraries"]["cffi"][0].isdigit()
    assert len(json.loads(files["tables/ct_tcp.json"])) >= 1
    assert [one["proto"] for one in json.loads(files["tables/ct_any.json"])] == ["ICMP"]
    assert "default/curl" in json.loads(files["tables/policy.json"])
    assert "fwd_endpoint 1.0" in files["metrics.txt"]
    assert files["doctor.txt"].startswith("ok  daemon: pid ")
    running, written = (json.loads(files[f"config/{name}.json"]) for name in ("running", "file"))
    assert running["settings"]["node.name"] == "node1"
    assert written["node.name"]["origin"].startswith(f"{lab.agent.path}:")
    assert "lo" in files["host/links.txt"]
    assert "hunter2" not in "".join(files.values())
    assert "<removed>" in files["config/running.json"]
    assert "<removed>" in files["config/file.json"]


def test_dump_has_no_label_that_looks_like_a_secret(tmp_path: Path):
    """Neither in settings nor in any table; its name stays, and the API's answer has it."""
    text = NODE.replace("{app: curl}", "{app: curl, api-token: s3cr3t}").replace(
        "    identity: 25001\n    labels", "    labels"
    )
    out = tmp_path / "dump.tar.gz"
    with lab_daemon(tmp_path, text) as lab:
        asked = fwd("endpoint", "get", "default/curl", "-o", "json", socket=lab.socket).out
        same = fwd("config", "diff", socket=lab.socket)
        fwd("sysdump", "--config", str(lab.agent.path), "--out", str(out), socket=lab.socket)
    assert "s3cr3t" in asked
    assert (same.code, same.out) == (0, "")
    files = contents(out)
    for name in ("config/file", "config/running", "tables/endpoints", "tables/identities"):
        assert "api-token" in files[f"{name}.json"], name
    assert [name for name, text in files.items() if "s3cr3t" in text] == []


def test_dump_without_a_daemon_has_the_rest(tmp_path: Path):
    """And says what is missing, once a reason."""
    out = tmp_path / "dump.tar.gz"
    socket = str(tmp_path / "none")
    ran = fwd("sysdump", "--config", str(tmp_path / "n"), "--out", str(out), socket=socket)
    assert ran.code == 0
    files = contents(out)
    assert {"versions.json", "doctor.txt", "missing.txt", "host/links.txt"} <= files.keys()
    assert "status.json" not in files
    assert "status.json: cannot reach the daemon" in files["missing.txt"]
    assert ran.err.count("cannot reach the daemon") == 1
    assert ran.err.count("cannot read the node file") == 1


def test_dump_overwrites_nothing(tmp_path: Path):
    """An older archive stays."""
    out = tmp_path / "dump.tar.gz"
    out.write_text("mine")
    ran = fwd("sysdump", "--out", str(out), socket=str(tmp_path / "none"))
    assert (ran.code, out.read_text()) == (1, "mine")
    assert ran.err == f"fwd: writing {out}: File exists, choose another --out\n"
