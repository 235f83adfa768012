"""benchmarks/beds: two of them up, one second of TCP each, and nothing left; what others say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchmarks import full, pods
from benchmarks.beds import BEDS
from benchmarks.beds.bed import ADDRESS, VIP, Bed, not_installed
from benchmarks.beds.fwd import NO_OFFLOADS, FwdPlain, node_files
from benchmarks.core import build
from benchmarks.parse import ParseError
from benchmarks.rounds import Plan, Samples
from benchmarks.rows import ROWS
from fwd.config.load import parse_node_text
from fwd.control.lab import LabError


def namespaces() -> set[str]:
    """Names of all namespaces of this host."""
    listing = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listing.splitlines()}


@pytest.mark.netns
@pytest.mark.parametrize("name", ["kernel", "fwd", "bridge"])
def test_bed_comes_up_moves_tcp_and_is_gone(name: str, tmp_path: Path) -> None:
    """One second of iperf3, more bytes than a handshake; then no namespace, process or folder."""
    bed = BEDS[name]()
    row = ROWS["same-node-tcp-1" if name == "bridge" else "tcp-1"]
    assert BEDS[name].missing() is None
    with bed:
        own = {bed.lab.name(short) for short in ("node1", "a")}
        assert own <= namespaces()
        samples = Samples()
        samples.measure([row], [bed], Plan(1, 1), tmp_path / "udp", print)
        rate, cpu = samples.lines([row], [bed], 1)
        assert (rate["bed"], rate["metric"], cpu["metric"]) == (name, "gbit_s", "cpu_s_gb")
        assert rate["median"] > 0.01
        servers = list(bed._servers)
        assert all(Path(f"/proc/{pid}").exists() for pid in servers)
    assert not own & namespaces()
    assert not any(Path(f"/proc/{pid}").exists() for pid in servers)
    assert not bed.lab.directory.exists()


@pytest.mark.netns
def test_udp_and_services_are_measured(tmp_path: Path) -> None:
    """On the kernel's bed the UDP row counts, and the service is there while it is asked for."""
    udp = build(tmp_path, "udp", library=False)
    with BEDS["kernel"]() as bed:
        got = ROWS["udp-1400"].run(bed, 1, udp)
        assert got["mbit_s"] == pytest.approx(got["kpps"] * 1400 * 8 / 1000)
        assert 0 <= got["loss_percent"] < 100
        fetch = ("curl", "-sS", "-m", "3", f"http://{VIP}/")
        with bed.service() as address:
            assert address == VIP
            assert bed.lab.run("a", *fetch).stdout == "fwd\n"
        assert bed.lab.run("a", *fetch, check=False).returncode != 0


@pytest.mark.netns
def test_bed_that_fails_leaves_nothing() -> None:
    """What was built before the failure is taken down."""

    class Broken(Bed):
        name, title = "broken", "broken"

        def build(self) -> None:
            """Make one namespace, then fail."""
            self.nodes("node1")
            raise LabError("the second half is missing")

    bed = Broken()
    with pytest.raises(LabError, match="second half"):
        bed.__enter__()
    assert bed.lab.name("node1") not in namespaces()
    assert not bed.lab.directory.exists()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bed names its programs, and the reason reads as a sentence."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert not_installed(["ovs-vsctl", "fastd"]) == "not installed: ovs-vsctl, fastd"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "fastd" in (BEDS["fastd"].missing() or "")
    assert "ovs-vswitchd" in (BEDS["ovs"].missing() or "")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert all("root" in (bed.missing() or "") for name, bed in BEDS.items() if name != "fwd-plain")


def test_bed_without_services_says_so() -> None:
    """A row that needs one is not run there, and a mistake is an error."""
    assert not ROWS["vip"].can_run(BEDS["ovs"])
    with pytest.raises(LabError, match="no services"), BEDS["ovs"]().service():
        pass


def test_node_files_are_valid_and_know_each_other() -> None:
    """Every pod of the other node is an ipcache row with its identity."""
    first, second = node_files({"node1": ("a", "c"), "node2": ("b",)}, ADDRESS, {})
    for data in (first, second):
        text = StringIO()
        YAML(typ="safe").dump(data, text)
        assert parse_node_text(text.getvalue(), Path("n.yaml")).node.name == data["node"]["name"]
    known = {row["prefix"]: row["identity"] for row in second["ipcache"]}
    assert known == {f"{row['ip']}/32": row["identity"] for row in first["endpoints"]}


def test_plain_bed_switches_every_offload_off() -> None:
    """The node file says no to each of them by name."""
    assert not any(NO_OFFLOADS.values())
    assert FwdPlain.sections["features"]["offload"] is NO_OFFLOADS


def test_table_fill_is_read_from_a_scrape() -> None:
    """Of the table of other protocols than TCP, whatever stands around it."""
    text = 'fwd_map_entries{map_name="ct4_global"} 3.0\n'
    text += 'fwd_map_entries{map_name="ct_any4_global"} 1.0e+06\n'
    assert full.entries(text) == 1_000_000
    with pytest.raises(ParseError):
        full.entries("fwd_map_entries 3\n")


def test_cost_of_a_process_is_what_it_used() -> None:
    """A busy child uses a good part of a core, a sleeping one next to nothing."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen(["sleep", "20"])
    try:
        used, rested = pods.cost_of(busy.pid, 0.5), pods.cost_of(idle.pid, 0.3)
    finally:
        for child in (busy, idle):
            child.kill()
            child.wait()
    assert used["cpu_percent"] > 5 > rested["cpu_percent"]
    assert used["rss_mb"] > 1
    with pytest.raises(ParseError, match="ended"):
        pods.cost_of(busy.pid, 0.01)
