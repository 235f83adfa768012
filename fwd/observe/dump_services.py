"""Services as JSON objects and as the text of Cilium's `bpf lb list` (reference 8.6).

Pure, as fwd/observe/dump.py is. A record has the node file's keys, and beside them the numbers that
conntrack entries name: ``rev_nat_id`` and each backend's ``id``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fwd.observe.dissect import host_port, protocol_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwd.model.rows import BackendRow, ServiceRow, SourceRangeRow

__all__ = ["LB_HEADERS", "backend_text", "frontend_text", "lb_cells", "maglev_record",
           "service_records", "service_type"]  # fmt: skip

LB_HEADERS = ("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)")
_EXT_LOCAL, _INT_LOCAL = 4, 16 << 8
_FLAGS = (
    (1, "external_ip"),
    (2, "node_port"),
    (_EXT_LOCAL, "ext_local"),
    (8, "host_port"),
    (16, "affinity"),
    (32, "load_balancer"),
    (64, "routable"),
    (128, "source_range"),
    (_INT_LOCAL, "int_local"),
    (32 << 8, "two_scopes"),
)
_TYPES = (
    ("node_port", "NodePort"),
    ("load_balancer", "LoadBalancer"),
    ("external_ip", "ExternalIPs"),
    ("host_port", "HostPort"),
)
_WORDS = (
    ("ext_local", "Local"),
    ("int_local", "InternalLocal"),
    ("two_scopes", "two-scopes"),
    ("affinity", "sessionAffinity"),
)
_SCOPES = {0: "external", 1: "internal"}
_STATES = {0: "active", 1: "terminating", 2: "quarantined", 3: "maintenance"}
_Record = dict[str, Any]


def service_records(
    services: Iterable[ServiceRow],
    backends: Iterable[BackendRow],
    names: Mapping[int, str],
    ranges: Iterable[SourceRangeRow] = (),
) -> list[_Record]:
    """Every frontend with its slots in order, sorted by frontend.

    Args:
        services: rows of the service table.
        backends: rows of the backend table.
        names: rev_nat_id to the service's name.
        ranges: rows of the source range table.
    """
    sources: dict[int, list[str]] = {}
    for one in ranges:
        sources.setdefault(one.rev_nat_id, []).append(str(one.prefix))
    known = {row.id: row for row in backends}
    rows = sorted(
        services,
        key=lambda row: (row.frontend.version, int(row.frontend), row.port, row.proto, row.scope),
    )
    return [
        _record(row, known, names.get(row.rev_nat_id))
        | {"source_ranges": sorted(sources.get(row.rev_nat_id, ()))}
        for row in rows
    ]


def maglev_record(places: Sequence[int]) -> _Record | None:
    """A Maglev table in short: its size and how many places each backend id has.

    Args:
        places: a backend id each; none at all for a service without a table.
    """
    if not places:
        return None
    return {"size": len(places), "places": dict(sorted(Counter(places).items()))}


def _record(row: ServiceRow, backends: Mapping[int, BackendRow], name: str | None) -> _Record:
    return {
        "name": name,
        "frontend": str(row.frontend),
        "port": row.port,
        "proto": protocol_name(row.proto).lower() if row.proto else "any",
        "scope": _SCOPES.get(row.scope, str(row.scope)),
        "flags": [word for bit, word in _FLAGS if row.flags & bit],
        "rev_nat_id": row.rev_nat_id,
        "affinity_timeout_s": row.affinity_timeout_s,
        "external_traffic_policy": "Local" if row.flags & _EXT_LOCAL else "Cluster",
        "internal_traffic_policy": "Local" if row.flags & _INT_LOCAL else "Cluster",
        "backends": [
            _backend(slot, backend_id, backends.get(backend_id))
            for slot, backend_id in enumerate(row.backends, 1)
        ],
    }


def _backend(slot: int, backend_id: int, row: BackendRow | None) -> _Record:
    return {
        "slot": slot,
        "id": backend_id,
        "ip": str(row.addr) if row else None,
        "port": row.port if row else None,
        "state": _STATES.get(row.state, str(row.state)) if row else None,
    }


def service_type(record: Mapping[str, Any]) -> str:
    """Cilium's word for what kind of frontend it is."""
    return next((text for flag, text in _TYPES if flag in record["flags"]), "ClusterIP")


def frontend_text(record: Mapping[str, Any]) -> str:
    """``10.96.0.10:80/TCP``, with ``/i`` behind it in the internal scope, as Cilium writes it."""
    scope = "/i" if record["scope"] == "internal" else ""
    return f"{host_port(record['frontend'], record['port'])}/{record['proto'].upper()}{scope}"


def backend_text(backend: Mapping[str, Any]) -> str:
    """``10.244.2.171:80``, with its state behind it unless that is active."""
    if backend["ip"] is None:
        return f"missing-backend-{backend['id']}"
    state = "" if backend["state"] == "active" else f"({backend['state']})"
    return f"{host_port(backend['ip'], backend['port'])}{state}"


def lb_cells(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows of one service in `bpf lb list`: the frontend, then its slots."""
    front, number = frontend_text(record), record["rev_nat_id"]
    flags = record["flags"]
    words = [service_type(record), *(text for flag, text in _WORDS if flag in flags)]
    words += [] if "routable" in flags else ["non-routable"]
    words += ["check source-range"] if "source_range" in flags else []
    none = host_port("::" if ":" in record["frontend"] else "0.0.0.0", 0)  # noqa: S104 - Cilium's
    yield f"{front} (0)", f"{none} ({number}) (0) [{', '.join(words)}]"
    for backend in record["backends"]:
        state = backend["state"]
        tail = f" [{state}]" if state not in {"active", None} else ""
        address = host_port(backend["ip"] or "0.0.0.0", backend["port"] or 0)  # noqa: S104
        target = f"{address}/{record['proto'].upper()}"
        yield f"{front} ({backend['slot']})", f"{target} ({number}) ({backend['slot']}){tail}"
