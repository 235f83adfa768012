"""The lab: it takes down what it made, after a crash too, and touches nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from fwd.control import lab as lab_module
from fwd.control.lab import Lab, LabError

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Labs keep their state under a folder of the test."""
    monkeypatch.setattr(lab_module, "STATE_ROOT", tmp_path)
    return tmp_path


def sleeper(lab: Lab, *command: str) -> subprocess.Popen[bytes]:
    """Spawn a process in the lab without a namespace, so that it needs no root."""
    lab.argv = lambda _short, argv: list(argv)
    return lab.spawn("none", *command, log="sleep.log")


def test_lab_keeps_a_state_file_while_it_is_up(root):
    """A lab is listed from its start to its end, under its own id."""
    with Lab("t") as lab:
        assert Lab.left("t") == [lab.directory]
        assert lab.name("node1") == f"fwd-{lab.run_id}-node1"
    assert Lab.left("t") == []
    assert list(root.iterdir()) == []


def test_lab_takes_fresh_ids():
    """Two labs never share a name."""
    assert Lab("t").run_id != Lab("t").run_id


def test_close_ends_the_processes(root):
    """A spawned process is gone after close, and close may be said twice."""
    lab = Lab("t").__enter__()
    child = sleeper(lab, "sleep", "60")
    assert lab.close() == [f"process {child.pid}"]
    assert child.poll() is not None
    assert lab.close() == []


def test_end_kills_what_ignores_sigterm(root):
    """After the grace time SIGKILL follows, and the caller is told."""
    with Lab("t") as lab:
        child = sleeper(lab, sys.executable, "-c", f"print('up', flush=True); {STUBBORN}")
        lab.wait_for("it", lambda: "up" in lab.log("sleep.log"))
        lab.wait_for("its handler", lambda: _ignores_term(child.pid))
        assert lab.end([child.pid], grace_s=0.2) == [child.pid]
        assert child.poll() is not None


def _ignores_term(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - /proc
        ignored = next(line for line in status if line.startswith("SigIgn")).split()[1]
    return bool(int(ignored, 16) >> 14 & 1)


def test_load_takes_over_a_crashed_lab(root):
    """Another process ends and removes what the state file names."""
    crashed = Lab("t").__enter__()
    child = sleeper(crashed, "sleep", "60")
    heir = Lab.load(crashed.directory)
    assert heir.run_id == crashed.run_id
    assert heir.close() == [f"process {child.pid}"]
    child.wait(timeout=5)
    assert Lab.left("t") == []


def test_load_never_ends_a_stranger_with_a_reused_pid(root):
    """A recorded pid with another start time is somebody else's process."""
    crashed = Lab("t").__enter__()
    (crashed.directory / "lab.json").write_text(
        json.dumps({"namespaces": [], "processes": {str(os.getpid()): "1"}, "owner": [1, "0"]})
    )
    assert Lab.load(crashed.directory).close() == []


def test_a_lab_is_in_use_while_its_maker_runs(root):
    """Others can tell a lab that will be taken down from one that was left."""
    lab = Lab("t").__enter__()
    assert Lab.load(lab.directory).in_use
    state = json.loads((lab.directory / "lab.json").read_text())
    (lab.directory / "lab.json").write_text(json.dumps({**state, "owner": [os.getpid(), "1"]}))
    assert not Lab.load(lab.directory).in_use


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"namespaces": [], "processes": []}'])
def test_load_refuses_a_broken_state_file(root, text):
    """The error names the folder and what to do."""
    folder = root / "t-1"
    folder.mkdir()
    (folder / "lab.json").write_text(text)
    with pytest.raises(LabError, match="remove the folder by hand"):
        Lab.load(folder)


def test_run_names_the_command_and_what_it_said(root):
    """A failed step shows its command line, exit status and last words."""
    with Lab("t") as lab, pytest.raises(LabError, match=r"`sh -c .*` exited 3: sorry"):
        lab.run(None, "sh", "-c", "echo sorry >&2; exit 3")
    with Lab("t") as lab, pytest.raises(LabError, match="no-such-command"):
        lab.run(None, "no-such-command")


def test_wait_for_gives_up(root):
    """What did not come is named."""
    with pytest.raises(LabError, match="waited 0 s for Godot"):
        Lab.wait_for("Godot", lambda: False, timeout_s=0.1)


@pytest.mark.netns
def test_namespaces_are_wired_and_removed():
    """Two namespaces on one veth reach each other, and are gone afterwards."""
    with Lab("fwd-test") as lab:
        names = [lab.namespace("left"), lab.namespace("right")]
        lab.wire([("left", "192.168.56.105/24"), ("right", "192.168.56.106/24")], mtu=1400)
        lab.run("left", "ping", "-c", "1", "-W", "2", "192.168.56.106")
        assert "mtu 1400" in lab.run("right", "ip", "link", "show", "eth0").stdout
        lab.drop_namespace("right")
        assert lab.namespaces == names[:1]
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert not set(names) & set(listing.stdout.split())
