"""`fwd run`, `replay`, `reload`, `door`: their errors and what they say."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.daemon import LabDaemon
from tests.api.frames import NODE, syn
from tests.cli.invoke import fwd


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    """The seed's node1."""
    path = tmp_path / "node1.yaml"
    path.write_text(NODE, encoding="utf-8")
    return path


@pytest.mark.parametrize("command", [("config", "check"), ("run", "--config")])
def test_bad_config_is_one_line(node_file: Path, command: tuple[str, ...]):
    """A bad file: one line on stderr with file, line and key, exit 1."""
    node_file.write_text(NODE.replace("peers:", "peeers:"), encoding="utf-8")
    ran = fwd(*command, str(node_file))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"fwd: {node_file}:6: peeers: ")
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize("command", [("config", "check"), ("run", "--config")])
def test_absent_config_is_one_line(tmp_path: Path, command: tuple[str, ...]):
    """A missing file is named, whoever asks."""
    ran = fwd(*command, str(tmp_path / "none.yaml"))
    assert ran.code == 1
    assert str(tmp_path / "none.yaml") in ran.err
    assert ran.err.count("\n") == 1


def test_run_without_config_is_usage():
    """There is no default node file to guess."""
    ran = fwd("run")
    assert ran.code == 2
    assert "--config" in ran.err


def test_run_refuses_an_unknown_log_level(node_file: Path):
    """A typo names the levels, before anything starts."""
    ran = fwd("run", "--config", str(node_file), "--log-level", "loud")
    assert ran.code == 2
    assert "use one of debug, info, warning, error" in ran.err


# ---- replay ----


def _step(n: int = 0) -> str:
    return json.dumps({"at": n, "port": "default/curl", "frame": syn().hex()})


def test_replay_answers_over_pipes_as_it_reads(node_file: Path):
    """A driver can wait for each answer before it writes the next step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fwd", "replay", "--config", str(node_file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    cts = []
    for n in range(2):
        process.stdin.write(_step(n) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert (answer["n"], answer["verdict"]) == (n, "TX_UNDERLAY")
        cts.append(answer["ct"])
    process.communicate()
    assert (cts, process.returncode) == (["new", "established"], 0)


def test_replay_of_files(node_file: Path, tmp_path: Path):
    """--in and --out take files; a bad line makes the exit code 1."""
    (tmp_path / "in").write_text(f"{_step()}\nfrob\n", encoding="utf-8")
    ran = fwd("replay", "--config", str(node_file), "--in", str(tmp_path / "in"),
              "--out", str(tmp_path / "out"))  # fmt: skip
    answers = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert ran.code == 1
    assert answers[0]["verdict"] == "TX_UNDERLAY"
    assert answers[1]["error"].startswith("line 2: ")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--in", "/nowhere/steps"], 1, "opening /nowhere/steps: No such file or directory"),
        (["--pcap-in", "x.pcap"], 2, "--pcap-in and --port go together"),
        (["--port", "default/curl"], 2, "--pcap-in and --port go together"),
        (["--seed", "-1"], 2, "--seed"),
    ],
)
def test_replay_refuses(node_file: Path, arguments: list[str], code: int, text: str):
    """What cannot be run is said before anything is read."""
    ran = fwd("replay", "--config", str(node_file), *arguments)
    assert ran.code == code
    assert text in ran.err


# ---- reload ----


def test_reload_reports_changes(lab: LabDaemon, monkeypatch: pytest.MonkeyPatch):
    """What came, went and changed, one line a kind; what did not is not mentioned."""

    async def report() -> dict[str, object]:
        return {
            "revision": 3,
            "endpoints": {"added": ["default/web", "default/db"], "removed": [], "replaced": []},
            "tables": {"ipcache": {"added": 2, "changed": 1, "removed": 0}, "policy": {"added": 0}},
            "notes": ["conntrack.capacity needs a restart"],
        }

    monkeypatch.setattr(lab.agent, "reload", report)
    assert fwd("reload", socket=lab.socket).out == (
        "reloaded, revision 3\n"
        "  endpoints added: default/web, default/db\n"
        "  ipcache: 2 added, 1 changed\n"
        "  note: conntrack.capacity needs a restart\n"
    )
    assert json.loads(fwd("reload", "-o", "json", socket=lab.socket).out)["revision"] == 3


def test_reload_of_a_bad_file_is_one_line(lab: LabDaemon):
    """The daemon's reason, with file and line, exit 1."""
    lab.agent.path.write_text("node: 1\n", encoding="utf-8")
    ran = fwd("reload", socket=lab.socket)
    assert ran.code == 1
    assert ran.err.startswith(f"fwd: nothing was changed: {lab.agent.path}:1: ")
    assert ran.err.count("\n") == 1


# ---- what systemd hands over ----

HANDED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "fwd", *sys.argv[2:]])
"""


def test_door_without_its_socket_says_where_it_comes_from():
    """Nobody starts it by hand."""
    ran = fwd("door")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("systemctl start fwd-door.socket\n")


def test_door_answers_on_the_socket_it_is_handed_and_ends_by_itself(tmp_path: Path):
    """As fwd-door.service: one refused errand, then silence, then exit 0."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client,
    ):
        listener.bind(str(tmp_path / "door"))
        listener.listen()
        environ = os.environ | {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "door"}
        command = [sys.executable, "-c", HANDED, str(listener.fileno()), "door", "--idle", "0.2"]
        client.connect(str(tmp_path / "door"))
        client.send(b"dance")
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environ)
        assert client.recv(256) == b"22 the door knows no such errand"
        assert process.wait(20) == 0
