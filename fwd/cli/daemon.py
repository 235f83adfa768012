"""Commands that run the node or read its file: `run`, `door`, `replay`, `reload`."""

from __future__ import annotations

import os
import socket as socket_module
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, cast

import typer

from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import json_object, print_lines

if TYPE_CHECKING:
    from fwd.control.revive import Revived

__all__ = ["door", "reload", "replay", "report_lines", "run"]

WRONG_FILE = 2
"""Exit code for a manager whose tries cannot help (RestartPreventExitStatus of fwd.service)."""
ConfigOption = Annotated[Path, typer.Option("--config", metavar="FILE", help="Node file (YAML).")]


def run(
    config: ConfigOption,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = "info",
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> Any:  # noqa: ANN401 - nothing, or early.py's order
    """Run the daemon in the foreground; SIGHUP reloads, SIGTERM ends it and cleans up."""
    from fwd.api.refusal import answering  # noqa: PLC0415
    from fwd.api.server import serving  # noqa: PLC0415
    from fwd.cli import early  # noqa: PLC0415
    from fwd.config.load import ConfigError  # noqa: PLC0415
    from fwd.control.preflight import UnmetError  # noqa: PLC0415
    from fwd.control.run import run_agent  # noqa: PLC0415
    from fwd.datapath.errors import DatapathError  # noqa: PLC0415
    from fwd.netlink.errors import LinkError  # noqa: PLC0415
    from fwd.observe.log import configure_log  # noqa: PLC0415

    try:
        configure_log(log_level, as_json=log_json)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--log-level") from None

    async def order(revived: Revived) -> int:
        try:
            listener = _listener(revived)
            clients = partial(serving, listener=listener), partial(answering, listener=listener)
            status = await run_agent(config, clients[0], revived, clients[1])
        except (ConfigError, DatapathError, LinkError, OSError) as error:
            _say(str(error))
            wrong = isinstance(error, ConfigError) and not isinstance(error, UnmetError)
            # Another try does not help, but the store keeps its devices only while there are tries.
            final = wrong and revived.store.present and not revived.store.names
            return WRONG_FILE if final else 1
        if revived.store.present:  # the interpreter's own end takes 100 ms, and packets wait
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        return status

    if early.WAITING.get():
        return order
    import uvloop  # noqa: PLC0415 - only the daemon pays for it

    raise typer.Exit(uvloop.run(early.run(order)))


def door(
    idle_s: Annotated[
        float, typer.Option("--idle", min=0.1, metavar="SECONDS", help="End when nobody comes.")
    ] = 30.0,
) -> None:
    """Enter pods' namespaces for the daemon: what fwd-door.service runs on its socket."""
    from fwd.control.listen_fds import take  # noqa: PLC0415
    from fwd.netlink.door import serve  # noqa: PLC0415

    given = take().get("door", [])
    if not given:
        _fail("nobody has handed over the door's socket: systemctl start fwd-door.socket")
    serve(socket_module.socket(fileno=given[0]), idle_s)


def replay(  # noqa: PLR0913, PLR0917 - one parameter an option
    config: ConfigOption,
    steps: Annotated[
        str, typer.Option("--in", metavar="FILE", help="Steps, one JSON object a line.")
    ] = "-",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="Answers, likewise.")] = "-",
    peer: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Node file of a second node.")
    ] = None,
    pcap_in: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Frames instead of steps.")
    ] = None,
    port: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where the frames of --pcap-in come in.")
    ] = None,
    pcap_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Capture what comes out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Hash seed of the tables.")] = 0,
) -> None:
    """Run packets through the same code offline; answers each step as it reads it."""
    from fwd.control.replay import replay_main  # noqa: PLC0415

    if (pcap_in is None) != (port is None):
        raise typer.BadParameter("--pcap-in and --port go together")
    with ExitStack() as stack:
        status = replay_main(
            config,
            steps_in=_open(stack, steps, "r", sys.stdin),
            out=_open(stack, out, "w", sys.stdout),
            peer=peer,
            pcap_in=pcap_in,
            pcap_out=pcap_out,
            port=port,
            seed=seed,
        )
    raise typer.Exit(status)


def _open(stack: ExitStack, name: str, mode: str, standard: TextIO) -> TextIO:
    """Open a file for the command's duration; "-" is the standard stream."""
    if name == "-":
        return standard
    try:
        file = Path(name).open(mode, encoding="utf-8")  # noqa: SIM115 - the stack closes it
    except OSError as error:
        _fail(f"opening {name}: {error.strerror}, check the path")
    return cast("TextIO", stack.enter_context(file))


def reload(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """Let the daemon read its node file again: all of it, or nothing at an error."""
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        report = client.post("/v1/reload")
    if output is Form.JSON:
        print_lines(json_object(report))
    else:
        print_lines(report_lines(report, "reloaded, revision"))


def report_lines(report: dict[str, Any], title: str) -> Iterator[str]:
    """What a reload has changed; nothing at all is said too."""
    yield f"{title} {report['revision']}"
    for verb, names in report.get("endpoints", {}).items():
        if names:
            yield f"  endpoints {verb}: {', '.join(names)}"
    for name, counts in report.get("tables", {}).items():
        changes = ", ".join(f"{count} {verb}" for verb, count in counts.items() if count)
        if changes:
            yield f"  {name}: {changes}"
    for note in report.get("notes", []):
        yield f"  note: {note}"


def _listener(revived: Revived) -> socket_module.socket | None:
    """The API's socket where systemd made it (`fwd.socket`), named `api` there."""
    return socket_module.socket(fileno=revived.api) if revived.api >= 0 else None


def _say(text: str) -> None:
    """Tell of an error; the journal shows it as one."""
    priority = "<3>" if "JOURNAL_STREAM" in os.environ else ""
    typer.echo(f"{priority}fwd: {text}", err=True)


def _fail(text: str) -> NoReturn:
    """End with an error."""
    _say(text)
    raise typer.Exit(1)
