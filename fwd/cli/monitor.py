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


def monitor(
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
    types: Annotated[
        list[EventType] | None,
        typer.Option("--type", "-t", help="Repeat it for more. Default: drop, trace, verdict."),
    ] = None,
) -> None:
    """Show drops, traces, policy verdicts or steps until interrupted."""
    from fwd.api.client import ApiError, Client  # noqa: PLC0415
    from fwd.observe.events import monitor_line  # noqa: PLC0415

    wanted = [str(one) for one in types or []]
    try:
        for record in Client(socket).stream("/v1/monitor", type=wanted):
            line = json.dumps(record) if output is Form.JSON else monitor_line(record)
            red = output is Form.TEXT and record["type"] == "drop"
            print(paint(line, "red") if red else line, flush=True)
    except KeyboardInterrupt:
        return
    raise ApiError("the daemon has ended the stream")
