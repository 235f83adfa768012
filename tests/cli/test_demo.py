"""``fwd demo`` without root: what it checks first, and how it reads the walk from records."""

from __future__ import annotations

import os

import pytest

from fwd.cli import demo
from fwd.control.lab import Lab
from fwd.control.topology import LabNode


def step(mark: str, time_ns: int, row: int, walk: str) -> dict[str, object]:
    """A ``step`` record as the monitor streams it."""
    return {"type": "step", "mark": mark, "time_ns": time_ns, "row": row, "walk": walk}


@pytest.fixture
def monitor(tmp_path, monkeypatch):
    """A monitor of a node that nobody runs."""
    monkeypatch.setattr(demo, "WALK_TIMEOUT_S", 0.2)
    return demo.Monitor(LabNode("node1", "192.0.2.1", tmp_path / "n.yaml", tmp_path / "n.sock"))


def test_walk_is_the_first_tcp_packet_to_its_end(monitor):
    """ARP before and packets after it are other packets' steps; lost records are no steps."""
    monitor.records = [
        step("0x0", 1, 0, " 0  stage_parse ARP"),
        step("0xa", 2, 0, " 0  stage_parse IPv4"),
        step("0xa", 2, 2, " 2  stage_ct_lookup(EGRESS) cilium_ct4_global TCP OUT: no entry"),
        {"type": "lost", "count": 3},
        step("0xa", 2, 8, " 8  hook_to_underlay"),
        step("0xa", 3, 0, " 0  stage_parse IPv4"),
    ]
    walked = monitor.wait_tcp_walk()
    assert walked.rows == {0, 2, 8}
    assert walked.lines[-1] == " 8  hook_to_underlay"


def test_walk_waits_for_the_packet_to_end(monitor):
    """While the last record is still of the packet itself, more of it may come."""
    monitor.records = [step("0xa", 2, 2, "cilium_ct4_global")]
    with pytest.raises(demo.DemoError, match="node1 told of no TCP packet"):
        monitor.wait_tcp_walk()


def test_preflight_names_what_is_missing_and_the_fix(monkeypatch, capsys):
    """Without root and tools: one line each, with the command that mends it, and nothing made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(demo.shutil, "which", lambda _name: None)
    before = Lab.left()
    with pytest.raises(demo.DemoError, match="nothing was made"):
        demo._check_first()
    shown = capsys.readouterr().out
    assert "sudo make demo" in shown
    assert "apt-get install iproute2" in shown
    assert "http.server" in shown
    assert Lab.left() == before


def test_default_configs_are_the_repositorys():
    """In a checkout the demo finds configs/ by itself."""
    assert (demo._default_configs() / "node2.yaml").is_file()
