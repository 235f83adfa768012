"""`fwd apply`, `fwd delete` and `fwd identity list`: manifests, and what they made of pods."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from fwd.cli.daemon import report_lines
from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import json_object, print_lines
from fwd.cli.tables import rows, show_rows

__all__ = ["apply", "delete", "identity_list"]

FilesOption = Annotated[
    list[str],
    typer.Option("--filename", "-f", metavar="FILE", help="Manifest, or - for stdin; repeatable."),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Of objects that name none.")
]


def apply(
    files: FilesOption,
    namespace: NamespaceOption = "default",
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """Add or change the objects of manifests: all of them, or none at an error."""
    _order("apply", files, namespace, socket, output)


def delete(
    files: FilesOption,
    namespace: NamespaceOption = "default",
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """Delete the objects of manifests that were applied: all of them, or none at an error."""
    _order("delete", files, namespace, socket, output)


def _order(action: str, names: list[str], namespace: str, socket: str, output: Form) -> None:
    from fwd.api.client import Client  # noqa: PLC0415 - only who asks pays for it

    files = [{"name": name, "text": _read(name), "namespace": namespace} for name in names]
    with Client(socket) as client:
        report = client.post("/v1/manifests", {"action": action, "files": files})
    if output is Form.JSON:
        print_lines(json_object(report))
    else:
        print_lines(_lines(report))


def _read(name: str) -> str:
    if name == "-":
        return sys.stdin.read()
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        text = f"reading {name}: {error.strerror}, check the path"
    except UnicodeDecodeError as error:
        text = f"reading {name}: not UTF-8 at byte {error.start}, save the file as UTF-8 text"
    typer.echo(f"fwd: {text}", err=True)
    raise typer.Exit(1)


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """One line an object, as kubectl prints them, then what that changed."""
    for one in report["objects"]:
        yield f"{one['kind'].lower()}/{one['name']} {one['action']}"
    yield from report_lines(report, "revision")


def identity_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List identities and their labels."""
    show_rows(
        rows(socket, "/v1/identity"),
        output,
        ["ID", "LABELS"],
        lambda one: [one["identity"], one["labels"]],
    )
