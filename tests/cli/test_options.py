"""Where --socket may stand, and which of several wins."""

from __future__ import annotations

import pytest

from fwd.cli.options import DEFAULT_SOCKET
from tests.cli.invoke import fwd


@pytest.mark.parametrize(
    ("arguments", "variable", "used"),
    [
        (["status"], None, DEFAULT_SOCKET),
        (["status"], "/nowhere/env", "/nowhere/env"),
        (["--socket", "/nowhere/root", "status"], "/nowhere/env", "/nowhere/root"),
        (["--socket", "/nowhere/root", "status", "--socket", "/nowhere/own"], "/nowhere/env",
         "/nowhere/own"),
        (["--socket", "/nowhere/root", "endpoint", "list"], None, "/nowhere/root"),
        (["bpf", "ct", "list", "global", "--socket", "/nowhere/own"], None, "/nowhere/own"),
    ],
)  # fmt: skip
def test_socket_precedence(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], variable: str | None, used: str
):
    """The command's own --socket, then the one before it, then FWD_SOCKET, then the default."""
    monkeypatch.delenv("FWD_SOCKET", raising=False)
    if variable:
        monkeypatch.setenv("FWD_SOCKET", variable)
    monkeypatch.setattr("socket.socket.connect", _refuse)
    ran = fwd(*arguments)
    assert ran.code == 3
    assert f"cannot reach the daemon at {used}: " in ran.err


def _refuse(_socket: object, path: str) -> None:
    raise FileNotFoundError(2, "No such file or directory", path)


def test_output_knows_two_forms():
    """Any other form is a usage error that names them."""
    ran = fwd("status", "-o", "yaml")
    assert ran.code == 2
    assert "'text', 'json'" in ran.err
