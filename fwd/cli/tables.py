"""Commands that show what the datapath's tables hold; one function a noun and verb.

The same functions stand behind Cilium's spellings (fwd/cli/aliases.py), so both print one truth.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any

import typer

from fwd.cli.background import in_background
from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import fields, json_array, json_object, print_lines, table

__all__ = [
    "ct_list",
    "endpoint_get",
    "endpoint_list",
    "ipcache_get",
    "ipcache_list",
    "metrics_list",
    "nat_list",
    "node_list",
    "policy_get",
    "policy_port",
    "rows",
    "show_rows",
]

EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id or name.")]
_Row = Mapping[str, Any]
_RATE_S = 0.25
"""Between the two looks that make a rate."""


class CtMap(StrEnum):
    """Which conntrack map to list."""

    ALL = "all"
    TCP = "tcp"
    ANY = "any"


def rows(socket: str, path: str, **query: object) -> Iterator[dict[str, Any]]:
    """Walk a table of the API page by page."""
    from fwd.api.client import Client  # noqa: PLC0415 - only who asks pays for it

    with Client(socket) as client:
        yield from in_background(client.rows(path, **query))


def _ct_entries(socket: str, name: str) -> Iterator[dict[str, Any]]:
    from fwd.api.client import Client  # noqa: PLC0415
    from fwd.api.records import ct_entries  # noqa: PLC0415

    with Client(socket) as client:
        yield from ct_entries(client, name)


def _object(socket: str, path: str, **query: object) -> dict[str, Any]:
    from fwd.api.client import Client  # noqa: PLC0415

    with Client(socket) as client:
        answer: dict[str, Any] = client.get(path, **query)
    return answer


def show_rows(
    found: Iterable[_Row],
    output: Form,
    headers: Sequence[str],
    cells: Callable[[_Row], Sequence[object]],
) -> None:
    """Print rows as a table or as a JSON array."""
    if output is Form.JSON:
        print_lines(json_array(found))
    else:
        print_lines(table(headers, map(cells, found)))


# ---- endpoints, nodes ----


def _enforcement(record: _Row, direction: str) -> str:
    return "enabled" if record.get("enforcement", {}).get(direction) else "disabled"


def endpoint_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List the local endpoints."""
    show_rows(
        rows(socket, "/v1/endpoint"),
        output,
        ["ID", "NAME", "INGRESS", "EGRESS", "IDENTITY", "ADDRESSES", "IFNAME", "STATUS"],
        lambda one: [
            one["id"],
            one["name"],
            _enforcement(one, "ingress"),
            _enforcement(one, "egress"),
            one["identity"],
            one["addresses"],
            one.get("ifname"),
            one["state"],
        ],
    )


def endpoint_get(
    endpoint: EndpointArgument, socket: SocketOption = "", output: FormOption = Form.TEXT
) -> None:
    """Show one endpoint, by id or name."""
    record = _object(socket, f"/v1/endpoint/{endpoint}")
    if output is Form.JSON:
        print_lines(json_object(record))
        return
    labels = (f"{key}={value}" for key, value in record.get("labels", {}).items())
    pairs: list[tuple[str, object]] = [
        ("ID", record["id"]),
        ("Name", record["name"]),
        ("Status", record["state"]),
        ("Identity", record["identity"]),
        ("Labels", list(labels)),
        ("Addresses", record["addresses"]),
        ("MAC", record["mac"]),
        ("Node MAC", record["node_mac"]),
        ("Device", f"{record.get('ifname') or '-'}, ifindex {record['ifindex']}"),
        ("Namespace", record.get("netns")),
        ("Ingress policy", _enforcement(record, "ingress")),
        ("Egress policy", _enforcement(record, "egress")),
    ]
    print_lines(fields(pairs))


def node_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List this node and its peers."""
    show_rows(
        rows(socket, "/v1/node"),
        output,
        ["NAME", "IP", "POD-CIDR", "VNI", "IDENTITY", "SELF"],
        lambda one: [
            one["name"],
            one["ip"],
            one["pod_cidr"],
            "identity" if one["vni"] is None else one["vni"],
            one["identity"],
            "yes" if one["self"] else "no",
        ],
    )


# ---- ipcache, conntrack ----


def _ipcache_cells(record: _Row) -> list[object]:
    return [
        record["prefix"],
        record["identity"],
        record["identity_name"],
        record["tunnel_endpoint"],
        record["flags"],
    ]


_IPCACHE_HEADERS = ["PREFIX", "IDENTITY", "NAME", "TUNNEL-ENDPOINT", "FLAGS"]


def ipcache_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List prefixes with their identity and tunnel endpoint."""
    show_rows(rows(socket, "/v1/ipcache"), output, _IPCACHE_HEADERS, _ipcache_cells)


def ipcache_get(
    ip: Annotated[str, typer.Argument(metavar="IP", help="An address.")],
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """Show the longest prefix that holds an address."""
    try:
        ip_address(ip)
    except ValueError:
        raise typer.BadParameter(f"{ip!r} is not an IP address, like 10.244.2.171") from None
    record = _object(socket, "/v1/ipcache", ip=ip)
    if output is Form.JSON:
        print_lines(json_object(record))
    else:
        print_lines(table(_IPCACHE_HEADERS, [_ipcache_cells(record)]))


def ct_list(
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
    which: Annotated[CtMap, typer.Option("--map", help="TCP, the rest, or both.")] = CtMap.ALL,
) -> None:
    """List tracked connections, from initiator to responder."""
    from fwd.observe.dump import ct_line  # noqa: PLC0415

    maps = ["tcp", "any"] if which is CtMap.ALL else [which.value]
    found = in_background(record for name in maps for record in _ct_entries(socket, name))
    print_lines(json_array(found) if output is Form.JSON else map(ct_line, found))


def nat_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List the masquerade mappings, both halves of each."""
    from fwd.observe.dump import nat_line  # noqa: PLC0415

    found = rows(socket, "/v1/nat")
    print_lines(json_array(found) if output is Form.JSON else map(nat_line, found))


# ---- policy, metrics ----


def policy_port(record: _Row) -> str:
    """``80/TCP``, ``ANY/UDP`` or ``ANY``, as Cilium writes it."""
    proto = str(record["proto"]).upper()
    return "ANY" if proto == "ANY" else f"{str(record['port']).upper()}/{proto}"


def policy_get(
    endpoint: EndpointArgument, socket: SocketOption = "", output: FormOption = Form.TEXT
) -> None:
    """Show an endpoint's policy map and the rules it came from."""
    from fwd.observe.words import rule_text  # noqa: PLC0415

    show_rows(
        rows(socket, f"/v1/policy/{endpoint}"),
        output,
        ["POLICY", "DIRECTION", "IDENTITY", "PORT/PROTO", "BYTES", "PACKETS", "RULE"],
        lambda one: [
            one["action"].capitalize(),
            one["direction"].capitalize(),
            one["identity_name"],
            policy_port(one),
            one["bytes"],
            one["packets"],
            rule_text(one["rule"]) if one["rule"] else None,
        ],
    )


def _pump_rates(socket: str) -> Iterator[_Row]:
    from fwd.api.client import Client  # noqa: PLC0415
    from fwd.observe.metrics import pump_rates  # noqa: PLC0415

    with Client(socket) as client:
        began, before = time.monotonic(), client.get("/v1/metrics", pump=1)
        time.sleep(_RATE_S)
        now = client.get("/v1/metrics", pump=1)
    yield from pump_rates(before, now, time.monotonic() - began)


def metrics_list(
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
    pattern: Annotated[
        str, typer.Option("--match-pattern", "-p", metavar="REGEX", help="Rows to show.")
    ] = "",
    pump: Annotated[
        bool, typer.Option("--pump", help="Wake-ups, super-packets, system calls instead.")
    ] = False,
) -> None:
    """Show packets and bytes by reason and direction, or the pump's counters and their rates."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise typer.BadParameter(f"{pattern!r} is no regular expression: {error}") from None
    if pump:
        show_rows(
            (one for one in _pump_rates(socket) if wanted.search(one["counter"])),
            output,
            ["COUNTER", "VALUE", "PER-SECOND"],
            lambda one: [one["counter"], one["value"], one["per_second"]],
        )
        return
    show_rows(
        (one for one in rows(socket, "/v1/metrics") if wanted.search(one["reason"])),
        output,
        ["REASON", "DIRECTION", "PACKETS", "BYTES"],
        lambda one: [one["reason"], one["direction"], one["packets"], one["bytes"]],
    )
