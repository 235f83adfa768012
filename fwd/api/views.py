"""Answers of the API that join several tables: status, endpoints, nodes, policy, map dumps.

Reads tables and the agent, changes nothing. Rows are made in slices with the loop in between, so
that no answer holds packets up, however long the table.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from fwd.config.pieces import ENVIRONMENT
from fwd.config.schema import EndpointSection, NodeFile
from fwd.config.show import settings
from fwd.control.node_source import ManifestFile
from fwd.control.world import World
from fwd.datapath.binding import Datapath
from fwd.model.identity import RESERVED
from fwd.model.rows import CtRow, IpcacheRow
from fwd.model.version import version
from fwd.observe import dump, dump_services
from fwd.observe.metrics import TABLES
from fwd.observe.monitor import MonitorHub

__all__ = [
    "MAPS",
    "Agent",
    "config",
    "ct_page",
    "endpoint_id",
    "endpoint_rows",
    "identity_rows",
    "node_rows",
    "policy_rows",
    "render_page",
    "render_rows",
    "service_rows",
    "status",
]

_ROWS = 4  # made between looks at the clock
_TURN_S = 1e-4  # spent on rows before the loop gets its turn, and packets with it
_Row = TypeVar("_Row")
Record = dict[str, Any]


class Agent(Protocol):
    """What the API asks of the daemon (fwd/control/agent.py)."""

    node: NodeFile
    world: World
    started_at: float

    @property
    def dp(self) -> Datapath:
        """The datapath."""

    @property
    def monitor(self) -> MonitorHub:
        """The event stream."""

    async def reload(self) -> dict[str, Any]:
        """Read the node file again, all or nothing."""

    async def change_manifests(
        self, files: Sequence[ManifestFile], *, delete: bool
    ) -> dict[str, Any]:
        """Apply or delete the objects of manifest files, all or nothing."""

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself."""

    def pump_stats(self) -> dict[str, int]:
        """Counters of the I/O room."""

    def view(self) -> Datapath:
        """The tables as they are now, copy on write; the caller closes it."""

    def endpoint_states(self) -> dict[int, str]:
        """State of every local endpoint by lxc_id."""


async def _slowly(rows: Iterable[_Row]) -> AsyncIterator[_Row]:
    until = time.perf_counter() + _TURN_S
    for count, row in enumerate(rows, 1):
        yield row
        if count % _ROWS == 0 and time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _TURN_S


async def render_page(
    page: Callable[[int, int], tuple[list[_Row], int]],
    render: Callable[[_Row], Record],
    cursor: int,
    limit: int,
) -> str:
    """Fill one page of at most ``limit`` rows from ``cursor`` on, with the loop in between.

    Returns:
        ``{"rows": [...], "next": cursor}`` as text; next 0 = that was the end.
    """
    out: list[str] = []
    until = time.perf_counter() + _TURN_S
    while len(out) < limit:
        rows, cursor = page(cursor, min(_ROWS, limit - len(out)))
        out += [json.dumps(render(row)) for row in rows]
        if cursor == 0:
            break
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _TURN_S
    return _page_text(out, cursor)


async def render_rows(records: Iterable[Record]) -> str:
    """Encode all rows of a short table as its one page."""
    return _page_text([json.dumps(record) async for record in _slowly(records)], 0)


def _page_text(rows: list[str], cursor: int) -> str:
    return f'{{"rows": [{", ".join(rows)}], "next": {cursor}}}'


def status(agent: Agent) -> dict[str, Any]:
    """The daemon in one object; keys of ``Agent.status`` stand beside the ones made here."""
    states = agent.endpoint_states()
    node = agent.node.node
    return agent.status() | {
        "version": version(),
        "pid": os.getpid(),
        "uptime_s": max(0, int(time.time() - agent.started_at)),
        "config": str(agent.node.path),
        "revision": agent.dp.generation,
        "node": {
            "name": node.name,
            "ip": str(node.ip),
            "pod_cidr": [str(one) for one in node.pod_cidr],
            "router_ip": [str(one) for one in node.router_ip],
        },
        "endpoints": {
            "total": len(states),
            "states": {state: list(states.values()).count(state) for state in set(states.values())},
        },
        "peers": len(agent.node.peers),
        "tables": {name: _table(agent.dp, name) for name in TABLES},
        "pump": agent.pump_stats(),
        "monitor": {"listeners": agent.monitor.listeners, "lost": agent.monitor.lost},
    }


def _table(dp: Datapath, name: str) -> dict[str, int]:
    stats = dp.stats(name)
    return {
        "count": stats.count,
        "cap": stats.cap,
        "bytes": stats.size,
        "evictions": stats.evictions,
        "failures": stats.failures,
    }


# ---- endpoints ----


def config(agent: Agent) -> Record:
    """The settings that run, the file they are read from, and the variables read over it."""
    environ = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    params = agent.dp.params  # tables keep their size until a stop, whatever a reload has read
    sizes = {"conntrack.capacity.tcp": params.ct_tcp, "conntrack.capacity.any": params.ct_any}
    path = str(agent.node.path)
    return {"path": path, "environ": environ, "settings": settings(agent.node) | sizes}


def endpoint_id(agent: Agent, text: str) -> int | None:
    """Resolve an endpoint by id or name; None = there is none."""
    for lxc_id, name in agent.world.names.items():
        if text in {name, str(lxc_id)}:
            return lxc_id
    return None


async def endpoint_rows(agent: Agent) -> list[Record]:
    """All local endpoints by id: the table's row, its addresses, and what the node file adds."""
    addresses: dict[int, list[str]] = {}
    async for lxc in _slowly(agent.dp.lxcs()):
        if not lxc.host:
            addresses.setdefault(lxc.lxc_id, []).append(str(lxc.addr))
    states = agent.endpoint_states()
    sections = {section.id: section for section in agent.node.endpoints}
    rows = []
    async for row in _slowly(agent.dp.endpoints()):
        name = agent.world.names.get(row.lxc_id)
        record = dump.endpoint_record(row, name, sorted(addresses.get(row.lxc_id, [])))
        record["state"] = states.get(row.lxc_id, "unknown")
        rows.append(record | _section_fields(sections.get(row.lxc_id)))
    return sorted(rows, key=lambda record: int(record["id"]))


def _section_fields(section: EndpointSection | None) -> dict[str, Any]:
    if section is None:
        return {}
    return {
        "labels": dict(section.labels),
        "ifname": section.ifname,
        "netns": section.netns,
        "enforcement": {
            "ingress": section.enforce.ingress,
            "egress": section.enforce.egress,
        },
    }


# ---- policy, nodes ----


async def policy_rows(agent: Agent, lxc_id: int) -> list[Record]:
    """The policy map of one endpoint, by direction and identity."""
    rows = []
    async for row in _slowly(agent.dp.policies()):
        if row.lxc_id == lxc_id:
            rule = agent.world.rules.get(row.rule_id)
            rows.append(dump.policy_record(row, rule.as_json() if rule else None))
    return sorted(
        rows, key=lambda one: (one["direction"] != "ingress", one["identity"], one["proto"],
                               one["port"]),
    )  # fmt: skip


async def node_rows(agent: Agent) -> list[Record]:
    """This node first, then the peers by address."""
    node = agent.node.node
    own = {
        "name": node.name,
        "ip": str(node.ip),
        "pod_cidr": [str(one) for one in node.pod_cidr],
        "self": True,
        "vni": None,
        "identity": None,
    }
    sections = {section.ip: section for section in agent.node.peers}
    rows = []
    async for row in _slowly(agent.dp.peers()):
        section = next((one for ip, one in sections.items() if ip == row.ip), None)
        cidrs = [str(one) for one in section.pod_cidr] if section else []
        rows.append(dump.peer_record(row, section.name if section else None, cidrs))
    return [own, *sorted(rows, key=lambda record: str(record["ip"]))]


# ---- identities ----


def identity_rows(agent: Agent) -> list[Record]:
    """Reserved identities and those made on this node, by number, with their labels."""
    names = {number: (f"reserved:{name}",) for number, name in RESERVED.items() if number}
    found = names | agent.node.identities
    return [{"identity": number, "labels": list(found[number])} for number in sorted(found)]


# ---- services ----


async def service_rows(agent: Agent, wanted: str | None = None) -> list[Record]:
    """Frontends with their slots; ``wanted`` is a name, a rev_nat_id or a frontend's text.

    Who asks for one also gets ``maglev``: size and places a backend id, None without a table.
    """
    services = [row async for row in _slowly(agent.dp.services())]
    backends = [row async for row in _slowly(agent.dp.backends())]
    ranges = [row async for row in _slowly(agent.dp.source_ranges())]
    records = dump_services.service_records(services, backends, agent.world.service_names, ranges)
    if wanted is None:
        return records
    found = [one for one in records if wanted in _service_names(one)]
    for one in found:
        one["maglev"] = dump_services.maglev_record(agent.dp.maglev(one["rev_nat_id"]))
    return found


def _service_names(record: Record) -> set[str]:
    text = dump_services.frontend_text(record)
    plain = text.removesuffix("/i")
    return {str(record["name"]), str(record["rev_nat_id"]), text, plain, plain.rsplit("/", 1)[0]}


# ---- map dumps ----


def _ipcache_entry(row: IpcacheRow) -> Record:
    record = dump.ipcache_record(row)
    return {"key": record["prefix"], "value": dump.ipcache_value(record), "state": "sync"}


def _ct_entry(row: CtRow) -> Record:
    record = dump.ct_record(row)
    return {"key": dump.ct_key(record), "value": dump.ct_value(record), "state": "sync"}


async def _ipcache_map(agent: Agent, cursor: int, limit: int) -> str:
    return await render_page(agent.dp.ipcache_page, _ipcache_entry, cursor, limit)


async def _lxc_map(agent: Agent, _cursor: int, _limit: int) -> str:
    endpoints = {row.lxc_id: row async for row in _slowly(agent.dp.endpoints())}
    found = [row async for row in _slowly(agent.dp.lxcs())]
    found.sort(key=lambda row: (row.host, row.addr.version, int(row.addr)))
    return await render_rows(
        {
            "key": f"{row.addr}:0",
            "value": dump.lxc_value(row, endpoints.get(row.lxc_id)),
            "state": "sync",
        }
        for row in found
    )


async def _lb_map(agent: Agent, _cursor: int, _limit: int) -> str:
    records = await service_rows(agent)
    cells = (cell for record in records for cell in dump_services.lb_cells(record))
    return await render_rows({"key": key, "value": text, "state": "sync"} for key, text in cells)


async def _ct_map(agent: Agent, cursor: int, limit: int, *, tcp: bool) -> str:
    return await render_page(partial(ct_page, agent.dp, tcp), _ct_entry, cursor, limit)


def ct_page(dp: Datapath, tcp: bool, cursor: int, limit: int) -> tuple[list[CtRow], int]:
    """``Datapath.ct_page`` with the arguments in the order that ``render_page`` gives them."""
    return dp.ct_page(tcp=tcp, cursor=cursor, limit=limit)


MAPS: Mapping[str, Callable[[Agent, int, int], Awaitable[str]]] = {
    "cilium_ipcache": _ipcache_map,
    "cilium_lxc": _lxc_map,
    "cilium_ct4_global": partial(_ct_map, tcp=True),
    "cilium_ct_any4_global": partial(_ct_map, tcp=False),
    "cilium_lb4_services_v2": _lb_map,
}
"""Map dumps by Cilium's names; each takes agent, cursor and limit and gives one page."""
