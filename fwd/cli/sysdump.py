"""`fwd sysdump`: one archive with all that somebody who helps from afar has to ask for."""

from __future__ import annotations

import asyncio
import io
import json
import platform
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from fwd.cli.config import DEFAULT_FILE
from fwd.cli.doctor import daemon_environ, findings
from fwd.cli.options import SocketOption

__all__ = ["sysdump"]

_ROWS_MAX = 100_000
"""Of one table: enough to see, small enough to send."""
_COMMAND_S = 10
_TABLES = {
    "endpoints": "/v1/endpoint",
    "ipcache": "/v1/ipcache",
    "services": "/v1/service",
    "identities": "/v1/identity",
    "nodes": "/v1/node",
    "nat": "/v1/nat",
    "metrics": "/v1/metrics",
}
_LIBRARIES = ("aiohttp", "cffi", "dpkt", "pydantic", "pyroute2", "ruamel.yaml", "uvloop")
_COMMANDS = {
    "host/links.txt": ["ip", "-d", "-s", "link"],
    "host/addresses.txt": ["ip", "addr"],
    "host/routes.txt": ["ip", "route", "show", "table", "all"],
    "host/namespaces.txt": ["ip", "netns", "list-id"],
    "host/sockets.txt": ["ss", "-lunp"],
    "host/unit.txt": ["systemctl", "status", "--no-pager", "fwd.service", "fwd-door.service"],
    "host/journal.txt": ["journalctl", "--no-pager", "-u", "fwd", "-u", "fwd-door", "-n", "2000"],
}


def sysdump(
    config: Annotated[
        Path, typer.Option("--config", metavar="FILE", help="Node file (YAML).")
    ] = DEFAULT_FILE,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Default: fwd-sysdump-TIME.tar.gz.")
    ] = None,
    socket: SocketOption = "",
) -> None:
    """Collect status, tables, settings without secrets, metrics and versions into one archive."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = out or Path(f"fwd-sysdump-{stamp}.tar.gz")
    missing: dict[str, str] = {}
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            with tarfile.open(fileobj=file, mode="w:gz") as tar:
                for name, make in _parts(config, socket):
                    _add(tar, name, make, missing)
                _put(
                    tar, "missing.txt", "".join(f"{name}: {why}\n" for name, why in missing.items())
                )
    except OSError as error:
        typer.echo(f"fwd: writing {path}: {error.strerror}, choose another --out", err=True)
        raise typer.Exit(1) from None
    for reason in dict.fromkeys(missing.values()):
        names = ", ".join(name for name, why in missing.items() if why == reason)
        typer.echo(f"not in it: {names}: {reason}", err=True)
    print(path)


def _parts(config: Path, socket: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Give the archive's files: name, and how its text is made."""
    yield "versions.json", _versions
    yield "config/file.json", lambda: _settings(config, socket)
    yield "doctor.txt", lambda: asyncio.run(_doctor(config, socket))
    yield "status.json", lambda: _ask(socket, "/v1/status")
    yield "config/running.json", lambda: _ask(socket, "/v1/config")
    yield "metrics.txt", lambda: _metrics(socket)
    for name, path in _TABLES.items():
        yield f"tables/{name}.json", partial(_rows, socket, path)
    for kind in ("tcp", "any"):
        yield f"tables/ct_{kind}.json", partial(_rows, socket, "/v1/ct", map=kind)
    yield "tables/policy.json", lambda: _policies(socket)
    for name, command in _COMMANDS.items():
        yield name, partial(_output, command)


def _add(tar: tarfile.TarFile, name: str, make: Callable[[], str], missing: dict[str, str]) -> None:
    try:
        text = make()
    except Exception as error:  # noqa: BLE001 - whatever is broken, the rest is wanted
        missing[name] = str(error) or repr(error)
    else:
        _put(tar, name, text)


def _put(tar: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    info = tarfile.TarInfo(f"fwd-sysdump/{name}")
    info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
    tar.addfile(info, io.BytesIO(data))


def _json(value: object) -> str:
    """Return what goes into the archive: whatever it is, without what looks like a secret."""
    from fwd.config.show import redacted  # noqa: PLC0415

    return json.dumps(redacted(value), indent=1) + "\n"


def _plain(text: str) -> str:
    from fwd.config.show import redacted_text  # noqa: PLC0415

    return redacted_text(text)


def _versions() -> str:
    from fwd.model.version import version  # noqa: PLC0415

    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = "absent"
    return _json(
        {
            "fwd": version(),
            "python": sys.version,
            "libraries": libraries,
            "kernel": platform.uname()._asdict(),
            "libc": " ".join(platform.libc_ver()),
        }
    )


def _settings(config: Path, socket: str) -> str:
    from fwd.config.load import load_node_file  # noqa: PLC0415
    from fwd.config.show import origin, redacted, settings  # noqa: PLC0415

    node = load_node_file(config, daemon_environ(config, socket))
    flat, places = redacted(settings(node)), origin(node)  # here the keys are settings' names
    return _json({key: {"value": flat[key], "origin": places[key]} for key in flat})


async def _doctor(config: Path, socket: str) -> str:
    lines = [f"{one.level}  {one.what}: {one.text}\n" async for one in findings(config, socket)]
    return _plain("".join(lines))


def _ask(socket: str, path: str) -> str:
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        return _json(client.get(path))


def _metrics(socket: str) -> str:
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        return _plain(client.text("/metrics"))


def _rows(socket: str, path: str, **query: object) -> str:
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        return _json(list(islice(client.rows(path, **query), _ROWS_MAX)))


def _policies(socket: str) -> str:
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        names: list[Mapping[str, Any]] = list(client.rows("/v1/endpoint"))
        return _json(
            {str(one["name"]): list(client.rows(f"/v1/policy/{one['id']}")) for one in names}
        )


def _output(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_COMMAND_S, check=False, errors="replace"
    )
    return _plain(done.stdout + done.stderr)
