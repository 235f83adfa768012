"""`fwd doctor`: what this host lacks for its node file, and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fwd.cli.config import DEFAULT_FILE, environ_of
from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import json_object, paint, print_lines

if TYPE_CHECKING:
    from fwd.control.doctor import Finding

__all__ = ["daemon_environ", "doctor", "findings"]

_ANSWER_S = 5.0
"""What a daemon has to say that it lives; it does in milliseconds."""
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="Node file (YAML).")
    ] = DEFAULT_FILE,
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """Look for what is wrong: each line ok, warn or fail, and what to do. Exit 1 if any failed."""

    async def show() -> bool:
        failed, seen = False, []
        async for one in findings(config, socket):
            failed |= one.level == "fail"
            seen.append(one)
            if output is Form.TEXT:
                print(f"{paint(one.level.ljust(4), _COLOURS[one.level])}  {one.what}: {one.text}")
        if output is Form.JSON:
            rows = [{"what": one.what, "level": one.level, "text": one.text} for one in seen]
            print_lines(json_object({"findings": rows}))
        return failed

    if asyncio.run(show()):
        raise typer.Exit(1)


async def findings(config: Path, socket: str) -> AsyncIterator[Finding]:
    """Ask the daemon, read the node file and, if that can be read, look at the host."""
    from fwd.config.load import ConfigError  # noqa: PLC0415
    from fwd.control.doctor import Finding, examine, readable  # noqa: PLC0415
    from fwd.control.node_source import read_node  # noqa: PLC0415
    from fwd.control.runner import find_runner  # noqa: PLC0415

    daemon, running, pid = _daemon(socket)
    yield daemon
    try:
        node = read_node(config, daemon_environ(config, socket if running else None))
    except ConfigError as error:
        yield Finding("node file", "fail", str(error))
        return
    runner = find_runner(config, pid)
    unread = readable(node, runner) if runner else None
    yield unread or Finding("node file", "ok", f"{config}, node {node.node.name}")
    async for one in examine(node, running=running, runner=runner):
        yield one


def daemon_environ(config: Path, socket: str | None) -> dict[str, str]:
    """Return the variables over the node file: a running daemon's, else those it would start with.

    Args:
        config: the node file.
        socket: of the daemon; None = none answers.
    """
    from fwd.api.client import ApiError, Client  # noqa: PLC0415

    if socket is not None:
        with contextlib.suppress(ApiError, KeyError), Client(socket, _ANSWER_S) as client:
            environ: dict[str, str] = client.get("/v1/config")["environ"]
            return environ
    return environ_of(config)


def _daemon(socket: str) -> tuple[Finding, bool | None, int | None]:
    """How the daemon is, whether it runs (None = somebody accepts, nobody answers), its pid."""
    from fwd.api.client import ApiError, Client, NoAnswer, Unreachable  # noqa: PLC0415
    from fwd.control.doctor import Finding  # noqa: PLC0415

    try:
        with Client(socket, _ANSWER_S) as client:
            answer = client.get("/v1/status")
    except Unreachable as error:
        return Finding("daemon", "warn", str(error)), False, None
    except NoAnswer as error:
        return Finding("daemon", "fail", str(error)), None, None
    except ApiError as error:
        return Finding("daemon", "fail", str(error)), True, None
    ready, total = answer["endpoints"]["states"].get("ready", 0), answer["endpoints"]["total"]
    text = f"pid {answer['pid']}, {ready} of {total} endpoints ready"
    if lost := answer.get("lost"):
        text += f", {' and '.join(lost)} gone: `fwd reload` makes it again"
        return Finding("daemon", "fail", text), True, answer["pid"]
    if ready == total:
        return Finding("daemon", "ok", text), True, answer["pid"]
    text += "; see `fwd endpoint list` and `fwd reload`"
    return Finding("daemon", "warn", text), True, answer["pid"]
