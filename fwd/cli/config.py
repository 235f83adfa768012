"""`fwd config`: a node file checked, shown with its origins, compared with the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import json_object, print_lines, table

__all__ = ["DEFAULT_FILE", "config_app", "environ_of"]

DEFAULT_FILE = Path("/etc/fwd/fwd.yaml")

config_app = typer.Typer(
    help="The node file, FILE.d/*.yaml over it, and FWD_* variables over both.",
    no_args_is_help=True,
)

FileArgument = Annotated[Path, typer.Argument(metavar="[FILE]", help="Node file (YAML).")]


@config_app.command("check")
def config_check(file: FileArgument = DEFAULT_FILE) -> None:
    """Read and compile a node file as the daemon would, and change nothing."""
    from fwd.config.check import unsteered  # noqa: PLC0415
    from fwd.config.load import ConfigError  # noqa: PLC0415
    from fwd.control.compile import compile_world  # noqa: PLC0415
    from fwd.control.node_source import read_node  # noqa: PLC0415

    try:
        node = read_node(file, environ_of(file))
        world = compile_world(node)
    except ConfigError as error:
        _fail(str(error))
    for warning in (*node.warnings, *unsteered(node)):
        typer.echo(f"warning: {warning}", err=True)
    print(
        f"{file}: ok, node {node.node.name}, {len(world.endpoints)} endpoints, "
        f"{len(world.peers)} peers, {len(world.ipcache)} ipcache entries, "
        f"{len(world.policy)} policy entries"
    )


@config_app.command("show")
def config_show(
    file: FileArgument = DEFAULT_FILE,
    output: FormOption = Form.TEXT,
    where: Annotated[bool, typer.Option("--origin", help="Say where each value is from.")] = False,
) -> None:
    """Show every setting a node file leads to, defaults included; manifests are not read."""
    from fwd.config.load import ConfigError, load_node_file  # noqa: PLC0415
    from fwd.config.show import as_text, origin, settings  # noqa: PLC0415

    try:
        node = load_node_file(file, environ_of(file))
    except ConfigError as error:
        _fail(str(error))
    flat, places = settings(node), origin(node)
    if output is Form.JSON:
        print_lines(
            json_object(
                {key: {"value": flat[key], "origin": places[key]} for key in flat}
                if where
                else flat
            )
        )
    elif where:
        rows = ([key, as_text(value), places[key]] for key, value in flat.items())
        print_lines(table(["key", "value", "origin"], rows))
    else:
        print_lines(f"{key}: {as_text(value)}" for key, value in flat.items())


@config_app.command("diff")
def config_diff(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: the one the daemon reads.")
    ] = None,
    socket: SocketOption = "",
) -> None:
    """Show what a reload would change: `-` is running, `+` is in the file. Exit 1 if any does."""
    from fwd.api.client import Client  # noqa: PLC0415
    from fwd.config.load import ConfigError  # noqa: PLC0415
    from fwd.config.show import differences, settings  # noqa: PLC0415
    from fwd.control.node_source import read_node  # noqa: PLC0415

    with Client(socket) as client:
        running: dict[str, Any] = client.get("/v1/config")
    path = file or Path(running["path"])
    try:
        node = read_node(path, running.get("environ", os.environ))
    except ConfigError as error:
        _fail(str(error))
    lines = list(differences(running["settings"], settings(node)))
    print_lines(lines)
    if lines:
        raise typer.Exit(1)


def environ_of(file: Path) -> dict[str, str]:
    """Return the variables over a node file that no daemon is asked about.

    Those of the unit that runs it, and over them the caller's, so that one can be tried.
    """
    from fwd.control.runner import unit_environ  # noqa: PLC0415

    return {**(unit_environ(file) or {}), **os.environ}


def _fail(text: str) -> NoReturn:
    typer.echo(f"fwd: {text}", err=True)
    raise typer.Exit(1)
