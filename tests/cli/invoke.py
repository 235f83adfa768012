"""The command line in this process, as the shell sees it."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from fwd.cli.main import main

__all__ = ["Ran", "fwd"]


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


def fwd(*arguments: str, socket: str | None = None) -> Ran:
    """Run `fwd` with arguments, and with --socket behind them where one is given."""
    out, err = StringIO(), StringIO()
    code = 0
    tail = ["--socket", socket] if socket else []
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([*arguments, *tail])
        except SystemExit as done:
            code = int(done.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())
