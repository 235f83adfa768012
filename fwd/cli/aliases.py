"""Cilium's spellings, hidden from --help: `fwd map get NAME` and `fwd bpf NOUN VERB`.

They print what Cilium's agent prints for the same command (reference 8.6), column for column.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from fwd.cli import services, tables
from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import json_array, print_lines, table

__all__ = ["bpf_app", "map_app"]

_GAP = 3  # Cilium's tabwriter

map_app = typer.Typer(help="The tables under Cilium's map names.", no_args_is_help=True)
bpf_app = typer.Typer(help="Cilium's `bpf` commands.", no_args_is_help=True)
_ct = typer.Typer(no_args_is_help=True)
_ipcache = typer.Typer(no_args_is_help=True)
_policy = typer.Typer(no_args_is_help=True)
_metrics = typer.Typer(no_args_is_help=True)
_endpoint = typer.Typer(no_args_is_help=True)
_nat = typer.Typer(no_args_is_help=True)
_lb = typer.Typer(no_args_is_help=True)
_tunnel = typer.Typer(no_args_is_help=True)

bpf_app.add_typer(_ct, name="ct", help="Conntrack.")
bpf_app.add_typer(_ipcache, name="ipcache", help="Prefix to identity.")
bpf_app.add_typer(_policy, name="policy", help="Policy maps.")
bpf_app.add_typer(_metrics, name="metrics", help="Counters.")
bpf_app.add_typer(_endpoint, name="endpoint", help="Local endpoints.")
bpf_app.add_typer(_nat, name="nat", help="Masquerade mappings.")
bpf_app.add_typer(_lb, name="lb", help="Services.")
bpf_app.add_typer(_tunnel, name="tunnel", help="Pod networks behind other nodes.")


class CtScope(StrEnum):
    """Cilium's argument of `bpf ct list`; fwd has global maps only."""

    GLOBAL = "global"


# ---- map ----


@map_app.command("list")
def map_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List the names `map get` knows."""
    found = tables.rows(socket, "/v1/map")
    tables.show_rows(found, output, ["NAME"], lambda one: [one["name"]])


@map_app.command("get")
def map_get(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For example cilium_ipcache.")],
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """Show one map's keys and values."""
    found = tables.rows(socket, f"/v1/map/{name}")
    if output is Form.JSON:
        print_lines(json_array(found))
        return
    cells = ([one["key"], one["value"], one["state"], ""] for one in found)
    lines = table(["Key", "Value", "State", "Error"], cells, gap=_GAP, upper=False)
    print_lines(_or_empty(lines, name))


def _or_empty(lines: Iterator[str], name: str) -> Iterator[str]:
    header = next(lines)
    first = next(lines, None)
    if first is None:
        yield f"{name} is empty"
        return
    yield header
    yield first
    yield from lines


# ---- bpf ----


@_ct.command("list")
def ct_list(
    scope: Annotated[CtScope, typer.Argument(help="Which maps.")] = CtScope.GLOBAL,
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """List tracked connections."""
    del scope  # there is but one
    tables.ct_list(socket, output)


_nat.command("list")(tables.nat_list)


@_ipcache.command("list")
def ipcache_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List prefixes with the value Cilium prints."""
    _key_value(socket, output, "cilium_ipcache", ["IP PREFIX/ADDRESS", "IDENTITY"])


@_endpoint.command("list")
def endpoint_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List local addresses."""
    _key_value(socket, output, "cilium_lxc", ["IP ADDRESS", "LOCAL ENDPOINT INFO"])


@_tunnel.command("list")
def tunnel_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List the peers' pod networks with the node each is behind."""
    found = [
        {"tunnel": f"{cidr.partition('/')[0]}:0", "value": f"{one['ip']}:0"}
        for one in tables.rows(socket, "/v1/node")
        if not one["self"]
        for cidr in one["pod_cidr"]
    ]
    if output is Form.JSON:
        print_lines(json_array(found))
        return
    cells = ([one["tunnel"], one["value"]] for one in found)
    print_lines(table(["TUNNEL", "VALUE"], cells, gap=_GAP))


def _key_value(socket: str, output: Form, name: str, headers: list[str]) -> None:
    found = tables.rows(socket, f"/v1/map/{name}")
    if output is Form.JSON:
        print_lines(json_array(found))
        return
    print_lines(table(headers, ([one["key"], one["value"]] for one in found), gap=_GAP))


@_policy.command("get")
def policy_get(
    endpoint: tables.EndpointArgument, socket: SocketOption = "", output: FormOption = Form.TEXT
) -> None:
    """Show an endpoint's policy map in Cilium's columns."""
    found = tables.rows(socket, f"/v1/policy/{endpoint}")
    if output is Form.JSON:
        print_lines(json_array(found))
        return
    headers = ["POLICY", "DIRECTION", "LABELS", "PORT/PROTO", "PROXY PORT", "BYTES", "PACKETS"]
    cells = (
        [
            one["action"].capitalize(),
            one["direction"].capitalize(),
            _labels(one["identity"], one["identity_name"]),
            tables.policy_port(one),
            "NONE",
            one["bytes"],
            one["packets"],
        ]
        for one in found
    )
    print_lines(table(headers, cells, gap=_GAP))


def _labels(identity: int, name: str) -> str:
    if identity == 0:
        return "ANY"
    return name if name == str(identity) else f"reserved:{name}"


_ipcache.command("get")(tables.ipcache_get)
_metrics.command("list")(tables.metrics_list)
_lb.command("list")(services.lb_list)
