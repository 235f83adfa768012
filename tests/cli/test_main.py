"""The tree of commands: what is there, what is hidden, how it fails, and that it starts fast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fwd.model.version import version
from tests.api.daemon import LabDaemon
from tests.cli.invoke import fwd

HEAVY = ["aiohttp", "uvloop", "pyroute2", "fwd.datapath._fwd", "prometheus_client", "ruamel.yaml",
         "structlog", "dpkt"]  # fmt: skip


def test_help_shows_nouns_and_hides_aliases():
    """Newcomers see one spelling of everything."""
    ran = fwd("--help")
    listed = {line.split()[0] for line in ran.out.splitlines() if line.startswith("  ")}
    assert ran.code == 0
    assert listed >= {
        "run", "replay", "config", "status", "endpoint", "ipcache", "ct", "policy", "node",
        "metrics", "monitor", "reload", "version", "demo",
    }  # fmt: skip
    assert not listed & {"map", "bpf", "peer"}


@pytest.mark.parametrize("command", ["endpoint", "ipcache", "ct", "map", "bpf", "bpf ct", "config"])
def test_nouns_alone_show_their_verbs(command: str):
    """A noun without a verb is a usage error that lists them."""
    ran = fwd(*command.split())
    assert ran.code == 2
    assert "Commands:" in ran.out + ran.err


@pytest.mark.parametrize("command", [["frob"], ["endpoint", "frob"], ["status", "--frob"],
                                     ["endpoint", "get"], ["ct", "list", "extra"]])  # fmt: skip
def test_usage_errors_exit_2(command: list[str]):
    """Usage goes to stderr, without boxes and without a traceback."""
    ran = fwd(*command)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: fwd ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "command",
    [
        "status", "endpoint list", "endpoint get 1", "ipcache list", "ipcache get 1.1.1.1",
        "ct list", "policy get 1", "node list", "metrics list", "monitor", "reload",
        "map get cilium_lxc", "bpf ct list global", "nat list", "service list", "service get web",
        "lb list", "identity list", "map list", "peer list", "bpf tunnel list", "bpf lb list",
        "bpf policy get 1", "bpf nat list", "bpf endpoint list", "bpf ipcache list",
        "bpf ipcache get 1.1.1.1", "bpf metrics list",
    ],
)  # fmt: skip
def test_without_a_daemon_every_command_exits_3(tmp_path: Path, command: str):
    """One line on stderr with the socket and what to try."""
    ran = fwd(*command.split(), socket=str(tmp_path / "no.sock"))
    assert ran.code == 3
    assert ran.err == (
        f"fwd: cannot reach the daemon at {tmp_path}/no.sock: No such file or directory; is it "
        "running? try: systemctl status fwd, or fwd run --config FILE\n"
    )


@pytest.mark.parametrize(
    "command",
    ["endpoint get nobody", "endpoint get 9", "policy get nobody", "service get nobody",
     "map get nothing", "bpf policy get nobody"],
)  # fmt: skip
def test_what_is_not_there_exits_4(lab: LabDaemon, command: str):
    """Nothing on stdout, and one line that names it."""
    ran = fwd(*command.split(), socket=lab.socket)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("fwd: no ")
    assert repr(command.rsplit(maxsplit=1)[-1]) in ran.err


@pytest.mark.parametrize("verb", ["apply", "delete"])
def test_what_the_daemon_refuses_exits_1(lab: LabDaemon, tmp_path: Path, verb: str):
    """A manifest that is wrong changes nothing, and the error has file and line."""
    file = tmp_path / "wrong.yaml"
    file.write_text("apiVersion: v1\nkind: Podd\n")
    ran = fwd(verb, "-f", str(file), socket=lab.socket)
    assert (ran.code, ran.out) == (1, "")
    assert f"{file}:2: kind: 'Podd'" in ran.err


def test_version_is_one_line():
    """Name and number."""
    assert fwd("version").out == f"fwd {version()}\n"


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch):
    """Only answers of the daemon become one line; a bug stays a bug."""

    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fwd.api.client.Client.get", broken)
    with pytest.raises(ZeroDivisionError):
        fwd("status", socket="/nowhere")


def test_status_imports_nothing_heavy(lab: LabDaemon):
    """A command that only asks the daemon does not load the daemon."""
    code = (
        "import sys\nfrom fwd.cli.main import main\n"
        f"try:\n    main(['status', '--socket', {lab.socket!r}])\n"
        f"except SystemExit as done:\n    assert not done.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_head_of_a_list_is_no_traceback(lab: LabDaemon):
    """`fwd ... | head -1` ends silently."""
    command = f"{sys.executable} -m fwd ipcache list --socket {lab.socket} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PREFIX")
    assert done.stderr == ""


def test_version_is_an_option_too():
    """As with any other program."""
    assert fwd("--version").out == fwd("version").out != ""
