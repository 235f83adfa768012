"""`fwd service` and `fwd lb list`: frontends and the backends behind them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fwd.cli.options import Form, FormOption, SocketOption
from fwd.cli.render import fields, json_array, print_lines, table
from fwd.cli.tables import rows, show_rows

__all__ = ["lb_list", "service_get", "service_list"]

_GAP = 3  # Cilium's tabwriter


def service_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List the services and their backends."""
    from fwd.observe.dump_services import (  # noqa: PLC0415 - only who asks pays for it
        backend_text,
        frontend_text,
        service_type,
    )

    show_rows(
        rows(socket, "/v1/service"),
        output,
        ["ID", "NAME", "FRONTEND", "TYPE", "BACKENDS"],
        lambda one: [
            one["rev_nat_id"],
            one["name"],
            frontend_text(one),
            service_type(one),
            [backend_text(backend) for backend in one["backends"]],
        ],
    )


def service_get(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="Name, id, or frontend like 10.96.0.10:80.")
    ],
    socket: SocketOption = "",
    output: FormOption = Form.TEXT,
) -> None:
    """Show one service, by name, id or frontend."""
    found = list(rows(socket, f"/v1/service/{service}"))
    if output is Form.JSON:
        print_lines(json_array(found))
        return
    for record in found:
        print_lines(fields(_service_fields(record)))


def _service_fields(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    from fwd.observe.dump_services import (  # noqa: PLC0415
        backend_text,
        frontend_text,
        service_type,
    )

    maglev = record["maglev"]
    timeout = f"{record['affinity_timeout_s']} s" if "affinity" in record["flags"] else None
    return [
        ("ID", record["rev_nat_id"]),
        ("Name", record["name"]),
        ("Frontend", frontend_text(record)),
        ("Type", service_type(record)),
        ("Flags", record["flags"]),
        ("Affinity", timeout),
        ("Source ranges", record["source_ranges"]),
        ("External traffic", record["external_traffic_policy"]),
        ("Internal traffic", record["internal_traffic_policy"]),
        ("Maglev", f"{maglev['size']} places" if maglev else None),
        *(
            (f"Backend {one['slot']}", f"{backend_text(one)} id {one['id']}{_share(one, maglev)}")
            for one in record["backends"]
        ),
    ]


def _share(backend: Mapping[str, Any], maglev: Mapping[str, Any] | None) -> str:
    """How many places of its service's Maglev table a backend has."""
    return f", {maglev['places'].get(str(backend['id']), 0)} places" if maglev else ""


def lb_list(socket: SocketOption = "", output: FormOption = Form.TEXT) -> None:
    """List the load-balancing maps as Cilium's `bpf lb list` does."""
    from fwd.observe.dump_services import LB_HEADERS, lb_cells  # noqa: PLC0415

    found = rows(socket, "/v1/service")
    if output is Form.JSON:
        print_lines(json_array(found))
        return
    cells = (cell for record in found for cell in lb_cells(record))
    print_lines(table(LB_HEADERS, cells, gap=_GAP))
