"""`fwd monitor`: what happens to packets, as it happens."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import paint

__all__ = ["monitor"]


class EventType(StrEnum):
    """What to listen to; both names of verdicts mean the same."""

    DROP = "drop"
    TRACE = "trace"
    VERDICT = "verdict"
    POLICY_VERDICT = "policy-verdict"
    STEP = "step"


def _split(values: list[str] | None) -> list[str]:
    """Read ``-t drop,trace -t step`` as three types."""
    found = [name for value in values or () for name in value.split(",")]
    for name in found:
        if name not in set(EventType):
            known = ", ".join(repr(str(one)) for one in EventType)
            raise typer.BadParameter(f"{name!r} is not one of {known}")
    return found


def monitor(
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            "-t",
            metavar="TYPE[,TYPE]...",
            callback=_split,
            help=f"{', '.join(EventType)}; may be repeated. Default: drop, trace, verdict.",
        ),
    ] = None,
) -> None:
    """Show drops, traces, policy verdicts or steps until interrupted."""
    from fwd.api.client import ApiError, Client  # noqa: PLC0415
    from fwd.observe.events import monitor_line  # noqa: PLC0415

    try:
        for record in Client(socket).stream("/v1/monitor", type=types or []):
            line = json.dumps(record) if output is Form.JSON else monitor_line(record)
            red = output is Form.TEXT and record["type"] == "drop"
            print(paint(line, "red") if red else line, flush=True)
    except KeyboardInterrupt:
        return
    raise ApiError("the daemon has ended the stream")
