"""Whole tables as JSON rows, for replay's ``dump`` steps; the live dumps go by cursor.

Reads one datapath, changes nothing. The rows are those of ``fwd ... list -o json`` where there is
such a command, sorted, so that two runs compare line by line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwd.model.address import mac_text
from fwd.observe.dump import ct_record, ipcache_record, nat_record, policy_record
from fwd.observe.dump_services import service_records
from fwd.observe.words import DIRECTION_TEXT, reason_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwd.control.world import World
    from fwd.datapath.binding import Datapath

__all__ = ["DUMP_TABLES", "dump_rows"]

Rows = list[dict[str, Any]]


def dump_rows(dp: Datapath, world: World, table: str) -> Rows:
    """Return every row of ``table``, one of ``DUMP_TABLES``.

    ``nat`` is always empty: this version has no NAT of its own.
    """
    return _DUMPS[table](dp, world)


def _ct(dp: Datapath, _world: World) -> Rows:
    rows = [ct_record(row) for tcp in (True, False) for row in dp.ct(tcp=tcp)]
    keys = ("proto", "direction", "src_ip", "src_port", "dst_ip", "dst_port", "related", "service")
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


def _ipcache(dp: Datapath, _world: World) -> Rows:
    rows = sorted(
        dp.ipcache(),
        key=lambda row: (row.prefix.version, int(row.prefix.network_address), row.prefix.prefixlen),
    )
    return [ipcache_record(row) for row in rows]


def _lxc(dp: Datapath, world: World) -> Rows:
    endpoints = {row.lxc_id: row for row in dp.endpoints()}
    rows: Rows = []
    for row in sorted(dp.lxcs(), key=lambda row: (row.addr.version, int(row.addr))):
        endpoint = endpoints.get(row.lxc_id)
        rows.append(
            {
                "ip": str(row.addr),
                "host": row.host,
                "id": row.lxc_id,
                "name": world.names.get(row.lxc_id),
                "identity": endpoint.identity if endpoint else None,
                "ifindex": endpoint.ifindex if endpoint else None,
                "mac": mac_text(endpoint.mac) if endpoint else None,
                "node_mac": mac_text(endpoint.node_mac) if endpoint else None,
            }
        )
    return rows


def _policy(dp: Datapath, world: World) -> Rows:
    rows = sorted(
        dp.policies(),
        key=lambda row: (row.lxc_id, row.dir, row.identity, row.proto, row.port, row.prefix_len),
    )
    found: Rows = []
    for row in rows:
        rule = world.rules.get(row.rule_id)
        head = {"endpoint": world.names.get(row.lxc_id), "id": row.lxc_id}
        found.append(head | policy_record(row, rule.as_json() if rule else None))
    return found


def _lb(dp: Datapath, world: World) -> Rows:
    return service_records(dp.services(), dp.backends(), world.service_names)


def _metrics(dp: Datapath, _world: World) -> Rows:
    rows = sorted(dp.metrics(), key=lambda row: (row.reason, row.dir))
    return [
        {
            "reason": row.reason,
            "text": reason_text(row.reason),
            "direction": DIRECTION_TEXT.get(row.dir, "unknown"),
            "packets": row.packets,
            "bytes": row.bytes,
        }
        for row in rows
    ]


def _nat(dp: Datapath, _world: World) -> Rows:
    keys = ("proto", "direction", "src_ip", "src_port", "dst_ip", "dst_port")
    rows = [nat_record(row) for row in dp.nats()]
    return sorted(rows, key=lambda row: tuple(row[key] for key in keys))


_DUMPS: dict[str, Callable[[Datapath, World], Rows]] = {
    "ct": _ct,
    "ipcache": _ipcache,
    "lb": _lb,
    "policy": _policy,
    "lxc": _lxc,
    "nat": _nat,
    "metrics": _metrics,
}

DUMP_TABLES = tuple(_DUMPS)
