"""The command line: one tree of nouns and verbs; what a command needs is imported when it runs.

Exit codes: 0 ok, 1 failed, 2 usage, 3 daemon not reachable, 4 no such object, 5 wait timed out;
`fwd trace` also 10 dropped, 11 rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fwd.cli import aliases, daemon, manifests, services, tables
from fwd.cli.config import config_app
from fwd.cli.doctor import doctor
from fwd.cli.monitor import monitor
from fwd.cli.options import RootSocketOption
from fwd.cli.status import status
from fwd.cli.sysdump import sysdump
from fwd.cli.trace import trace

__all__ = ["app", "main"]

_EXIT_FAILED, _EXIT_UNREACHABLE, _EXIT_NOT_FOUND = 1, 3, 4


class _Group(TyperGroup):
    """Loads `fwd demo` when it is asked for: it pulls in what no other command needs.

    Contexts and commands are of typer's private click: Any is the only name they have.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        return [*super().list_commands(ctx), "demo"]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        if cmd_name != "demo":
            return super().get_command(ctx, cmd_name)
        from fwd.cli.demo import app as demo  # noqa: PLC0415

        return typer.main.get_group(demo)


app = typer.Typer(
    cls=_Group,
    help="Cilium's packet path in one userspace daemon a host.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _noun(name: str, text: str) -> typer.Typer:
    noun = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(noun, name=name, help=text)
    return noun


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _root(
    socket: RootSocketOption = "",
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options before the command."""
    del socket, show_version  # read by the command's own --socket (fwd/cli/options.py)


@app.command()
def version() -> None:
    """Show the version."""
    from fwd.model.version import version as installed  # noqa: PLC0415

    print(f"fwd {installed()}")


for _command in (
    daemon.run, daemon.replay, status, monitor, daemon.reload, manifests.apply, manifests.delete,
):  # fmt: skip
    app.command()(_command)
app.command()(doctor)
app.command()(sysdump)
app.command(hidden=True)(daemon.door)
app.command(context_settings={"ignore_unknown_options": True})(trace)  # "->" is no option
app.add_typer(config_app, name="config")

_endpoint = _noun("endpoint", "Local pods.")
_endpoint.command("list")(tables.endpoint_list)
_endpoint.command("get")(tables.endpoint_get)
_ipcache = _noun("ipcache", "Prefix to identity and tunnel endpoint.")
_ipcache.command("list")(tables.ipcache_list)
_ipcache.command("get")(tables.ipcache_get)
_noun("ct", "Tracked connections.").command("list")(tables.ct_list)
_noun("nat", "Masquerade mappings.").command("list")(tables.nat_list)
_noun("policy", "Policy maps and their rules.").command("get")(tables.policy_get)
_service = _noun("service", "Frontends and their backends.")
_service.command("list")(services.service_list)
_service.command("get")(services.service_get)
_noun("lb", "Load-balancing maps.").command("list")(services.lb_list)
_noun("identity", "Who is who.").command("list")(manifests.identity_list)
_noun("node", "This node and its peers.").command("list")(tables.node_list)
_noun("metrics", "Packet counters.").command("list")(tables.metrics_list)

app.add_typer(aliases.map_app, name="map", hidden=True)
app.add_typer(aliases.bpf_app, name="bpf", hidden=True)
_peer = typer.Typer(no_args_is_help=True)
_peer.command("list")(tables.node_list)
app.add_typer(_peer, name="peer", hidden=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; None = the process's own.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        app(args=arguments, prog_name="fwd")
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        typer.echo(f"fwd: {error}", err=True)
        raise SystemExit(code) from None


def _exit_code(error: Exception) -> int | None:
    """Exit code of an answer of the daemon; None = this is a bug, show its traceback."""
    from fwd.api.client import ApiError, NotFound, Unreachable  # noqa: PLC0415

    for kind, code in (
        (Unreachable, _EXIT_UNREACHABLE),
        (NotFound, _EXIT_NOT_FOUND),
        (ApiError, _EXIT_FAILED),
    ):
        if isinstance(error, kind):
            return code
    return None
