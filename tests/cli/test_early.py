"""`fwd run` with something to take over; that it forwards first, tests/netns/test_restart.py."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
import structlog

from fwd.cli import early
from fwd.control.revive import Revived
from fwd.control.store import Store


def fwd(*arguments: str, given: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line, as if a manager had handed descriptors over or not."""
    env = {**os.environ, "LISTEN_FDS": "0"} if given else dict(os.environ)
    return subprocess.run(
        [sys.executable, "-m", "fwd", *arguments],
        capture_output=True, text=True, env=env, check=False, timeout=30,
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--config", "x.yaml", "--log-level", "loud"),
        ("run", "--config", "x.yaml", "--bogus"),
        ("run", "--help"),
        ("run", "--config", "/nowhere/x.yaml"),
    ],
)
def test_command_line_is_answered_as_ever(arguments):
    """Code and text are those of a first start, wrong or right."""
    early_one, usual = fwd(*arguments), fwd(*arguments, given=False)
    assert (early_one.returncode, early_one.stdout) == (usual.returncode, usual.stdout)
    assert early_one.stderr == usual.stderr


def test_only_run_is_early():
    """Other commands do not look at descriptors, whatever the environment says."""
    assert fwd("config", "--help").returncode == 0


@pytest.fixture
def own_log():
    """What the command line sets up writes to this test's stderr: undone afterwards."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("own_log")
def test_reading_gives_an_order_and_carries_nothing_out(tmp_path, capsys):
    """The order then fails like the command would."""
    order = early._read(["run", "--config", str(tmp_path / "none.yaml")])
    assert callable(order)
    assert asyncio.run(order(Revived(Store()))) == 1
    assert "none.yaml" in capsys.readouterr().err


@pytest.mark.usefixtures("own_log")
@pytest.mark.parametrize(
    ("text", "size", "stored", "status"),
    [
        ("node: 1\n", 8, (), 2),
        ("node: 1\n", 0, (), 1),
        ("node: 1\n", 8, ("arena",), 1),
        ("node: {name: n, ip: 192.0.2.77, pod_cidr: 10.0.0.0/24}\n", 8, (), 1),
    ],
)
def test_exit_code_tells_whether_another_try_may_help(
    tmp_path, capsys, monkeypatch, text, size, stored, status
):
    """A manager hears that it does not where a wrong file, and nothing stored, is the reason."""
    monkeypatch.setattr("fwd.control.preflight.check_rights", lambda: None)
    monkeypatch.setattr("fwd.control.preflight.check_tun_device", lambda: None)
    file = tmp_path / "n.yaml"
    file.write_text(text)
    order = early._read(["run", "--config", str(file)])
    assert callable(order)
    store = Store("@nobody", size)
    store.names.update(stored)
    assert asyncio.run(order(Revived(store))) == status
    assert f"{file}:1: " in capsys.readouterr().err
