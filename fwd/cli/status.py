"""`fwd status`: the daemon at a glance, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import duration, fields, json_object, paint, print_lines

__all__ = ["status"]

_WAIT_STEP_S = 0.1
_LEAST_S = 0.5
"""What a daemon gets to answer, however little of the wait is left."""
_EXIT_TIMED_OUT = 5
_READY = "ready"


def status(
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
    brief: Annotated[bool, typer.Option("--brief", help="One word, and the exit code.")] = False,
    wait: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Wait until all is ready; exit 5 if not."),
    ] = None,
) -> None:
    """Show what the daemon does and how full its tables are."""
    answer = _fetch(socket, wait)
    healthy = _is_ready(answer)
    if output is Form.JSON:
        print_lines(json_object(answer))
    elif brief:
        print("OK" if healthy else f"degraded: endpoints {_state_text(answer)}")
    else:
        print_lines(fields(_pairs(answer, healthy=healthy)))
    if wait is not None and not healthy:
        typer.echo(f"fwd: not ready after {wait:g} s: endpoints {_state_text(answer)}", err=True)
        raise typer.Exit(_EXIT_TIMED_OUT)
    if brief and not healthy:
        raise typer.Exit(1)


def _fetch(socket: str, wait_s: float | None) -> dict[str, Any]:
    """Ask once, or until all is ready or ``wait_s`` is over."""
    from fwd.api.client import Client, NoAnswer, Unreachable  # noqa: PLC0415 - starts fast without

    if wait_s is None:
        with Client(socket) as client:
            plain: dict[str, Any] = client.get("/v1/status")
        return plain
    deadline = time.monotonic() + wait_s
    while True:
        left_s = deadline - time.monotonic()
        try:
            with Client(socket, max(left_s, _LEAST_S)) as client:
                answer: dict[str, Any] = client.get("/v1/status")
        except (NoAnswer, Unreachable) as error:
            if time.monotonic() >= deadline:
                typer.echo(f"fwd: {error}", err=True)
                raise typer.Exit(_EXIT_TIMED_OUT) from None
        else:
            if left_s <= 0 or _is_ready(answer):
                return answer
        time.sleep(_WAIT_STEP_S)


def _is_ready(answer: dict[str, Any]) -> bool:
    endpoints = answer["endpoints"]
    ready = endpoints["states"].get(_READY, 0) == endpoints["total"]
    return bool(ready and not answer.get("lost"))


def _endpoints_text(answer: dict[str, Any]) -> str:
    endpoints = answer["endpoints"]
    text = f"{endpoints['states'].get(_READY, 0)} of {endpoints['total']} ready"
    others = sorted(item for item in endpoints["states"].items() if item[0] != _READY)
    return text + "".join(f", {count} {state}" for state, count in others)


def _state_text(answer: dict[str, Any]) -> str:
    """Everything that ``_is_ready`` looks at."""
    return _endpoints_text(answer) + "".join(f", {name} gone" for name in answer.get("lost", ()))


def _pairs(answer: dict[str, Any], *, healthy: bool) -> Iterator[tuple[str, object]]:
    node, tables, monitor = answer["node"], answer["tables"], answer["monitor"]
    state = paint("ok", "green") if healthy else paint("degraded", "yellow")
    up = duration(answer["uptime_s"])
    yield "Daemon", f"{state}, up {up}, pid {answer['pid']}, fwd {answer['version']}"
    yield "Node", f"{node['name']}, underlay {node['ip']}"
    yield "Pods", f"{', '.join(node['pod_cidr'])} via {', '.join(node['router_ip'])}"
    yield "Config", f"{answer['config']}, revision {answer['revision']}"
    yield "Endpoints", _endpoints_text(answer)
    if lost := answer.get("lost"):
        yield "Lost", f"{', '.join(lost)}: somebody deleted it; `fwd reload` makes it again"
    yield "Peers", answer["peers"]
    if outside := answer.get("outside"):
        way = f"from {outside['uplink']} to {outside['device']}"
        yield "Outside", f"{outside['frontends']} frontends, {way}"
    yield "Conntrack", _fill(tables, conntrack=True)
    yield "Tables", _fill(tables, conntrack=False)
    if answer["pump"]:
        pump = answer["pump"]
        yield "Packets", f"{pump.get('rx_packets', 0)} in, {pump.get('tx_packets', 0)} out"
    if offload := answer.get("offload"):
        yield "Offloads", ", ".join(name for name, on in offload.items() if on is True) or "none"
    yield "Monitor", f"{monitor['listeners']} listeners, {monitor['lost']} events lost"


def _fill(tables: dict[str, dict[str, int]], *, conntrack: bool) -> str:
    """``name count/cap`` of the conntrack maps, or of all other tables."""
    return ", ".join(
        f"{name.removeprefix('ct_')} {table['count']}/{table['cap']}"
        for name, table in tables.items()
        if name.startswith("ct_") is conntrack
    )
