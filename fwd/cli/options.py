"""Options that commands share: where the daemon's socket is, and in which form to answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["DEFAULT_SOCKET", "Form", "FormOption", "RootSocketOption", "SocketOption"]

DEFAULT_SOCKET = "/run/fwd/fwd.sock"
_HELP = "The daemon's API socket."


class Form(StrEnum):
    """How a command prints its answer."""

    TEXT = "text"
    JSON = "json"


def _inherit(context: typer.Context, value: str) -> str:
    """Let `fwd --socket PATH status` mean the same as `fwd status --socket PATH`."""
    return value or context.find_root().params.get("socket") or DEFAULT_SOCKET


RootSocketOption = Annotated[
    str, typer.Option("--socket", metavar="PATH", envvar="FWD_SOCKET", help=_HELP)
]
SocketOption = Annotated[
    str,
    typer.Option(
        "--socket", metavar="PATH", callback=_inherit, show_default=DEFAULT_SOCKET, help=_HELP
    ),
]
FormOption = Annotated[Form, typer.Option("--output", "-o", help="Form of the answer.")]
