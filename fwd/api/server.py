"""The daemon's API: JSON over HTTP on a unix socket, metrics for scrapers over TCP.

All is for whoever may open the socket (root and its group); orders are reload and manifests. Errors
are ``{"error": text}``; orders refused are logged, too. Long tables come page by page (``cursor``,
``limit``), the monitor as ndjson until one side goes away.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from socket import socket
from typing import Any

from aiohttp import web

from fwd.api import views
from fwd.api.manifests import parse_order
from fwd.api.paging import paging
from fwd.api.records import CT_RECORDS, NEXT_HEADER
from fwd.api.socket_path import SocketTakenError, claim, open_to_group, remove, tell_path
from fwd.api.trace import trace_packet
from fwd.api.views import Agent
from fwd.config.load import ConfigError
from fwd.datapath.binding import Datapath
from fwd.datapath.errors import DatapathError
from fwd.model.rows import IpcacheRow
from fwd.observe import dump
from fwd.observe.log import get_logger
from fwd.observe.metrics import metric_json, metrics_text
from fwd.observe.monitor import Subscription

__all__ = ["SocketTakenError", "make_app", "make_metrics_app", "serving"]

_LOOK_S = 0.5  # how soon a silent stream finds out that its client has gone
_LINES = 64  # of a stream, before the loop gets its turn
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SHUTDOWN_S = 2.0
_BODY_MAX = 64 << 20  # bytes of manifests in one order

_AGENT: web.AppKey[Agent] = web.AppKey("agent", Agent)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(agent: Agent) -> web.Application:
    """Build the API of one daemon; it listens nowhere yet."""
    app = web.Application(middlewares=[_errors_as_json], client_max_size=_BODY_MAX)
    app[_AGENT] = agent
    app.add_routes(
        [
            web.get("/v1/status", _status),
            web.get("/v1/config", _config),
            web.get("/v1/endpoint", _endpoints),
            web.get("/v1/endpoint/{endpoint:.+}", _endpoint),
            web.get("/v1/ipcache", _ipcache),
            web.get("/v1/ct", _ct),
            web.get("/v1/nat", _nat),
            web.get("/v1/policy/{endpoint:.+}", _policy),
            web.get("/v1/service", _services),
            web.get("/v1/service/{service:.+}", _service),
            web.get("/v1/identity", _identities),
            web.get("/v1/node", _nodes),
            web.get("/v1/metrics", _metrics),
            web.get("/v1/map", _maps),
            web.get("/v1/map/{name}", _map),
            web.get("/v1/monitor", _monitor),
            web.post("/v1/reload", _reload),
            web.post("/v1/manifests", _manifests),
            web.post("/v1/trace", _trace),
            web.get("/metrics", _prometheus),
        ]
    )
    app.on_shutdown.append(_end_streams)
    return app


def make_metrics_app(agent: Agent) -> web.Application:
    """Build the app for scrapers: /metrics and nothing else."""
    app = web.Application()
    app[_AGENT] = agent
    app.add_routes([web.get("/metrics", _prometheus)])
    return app


# ---- listening ----


@asynccontextmanager
async def serving(agent: Agent, listener: socket | None = None) -> AsyncIterator[None]:
    """Listen on the node file's API socket, and for scrapers where it has a metrics section.

    Args:
        agent: answers.
        listener: a listening unix socket that systemd made (`fwd.socket`): used instead of the node
            file's, and left to systemd at the end, so that clients queue during a restart.

    Raises:
        SocketTakenError: another daemon answers there; nothing is touched.
        OSError: the socket or the TCP address cannot be had; the text names it.
    """
    path = Path(agent.node.api.socket)
    runners: list[web.AppRunner] = []
    if listener is None:
        claim(path)
    try:
        if listener is None:
            await _start(runners, make_app(agent), lambda runner: web.UnixSite(runner, path))
            open_to_group(path)
        else:
            tell_path(listener, path)
            await _start(runners, make_app(agent), lambda runner: web.SockSite(runner, listener))
        if agent.node.metrics is not None:
            host, _, port = agent.node.metrics.listen.rpartition(":")
            await _start(
                runners,
                make_metrics_app(agent),
                lambda runner: web.TCPSite(runner, host.strip("[]"), int(port)),
            )
        yield
    finally:
        for runner in reversed(runners):
            await runner.cleanup()
        if listener is None:
            remove(path)


async def _start(
    runners: list[web.AppRunner],
    app: web.Application,
    site: Callable[[web.AppRunner], web.BaseSite],
) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    runners.append(runner)
    await runner.setup()
    await site(runner).start()


# ---- plumbing ----


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status == web.HTTPNotFound.status_code and error.text == "404: Not Found":
            return _refuse(404, f"no such resource: {request.path}")
        return _refuse(error.status, error.text or error.reason)
    except (ConnectionResetError, ConnectionAbortedError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets JSON
        get_logger().exception("api request failed", method=request.method, path=request.path)
        return _refuse(500, f"{request.method} {request.path} failed: {error!r}, see the log")


def _refuse(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


def _json_text(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")


def _endpoint_id(request: web.Request) -> int:
    text = request.match_info["endpoint"]
    lxc_id = views.endpoint_id(request.app[_AGENT], text)
    if lxc_id is None:
        raise web.HTTPNotFound(text=f"no endpoint {text!r}; see: fwd endpoint list")
    return lxc_id


# ---- reads ----


async def _status(request: web.Request) -> web.Response:
    return web.json_response(views.status(request.app[_AGENT]))


async def _config(request: web.Request) -> web.Response:
    return web.json_response(views.config(request.app[_AGENT]))


async def _endpoints(request: web.Request) -> web.Response:
    return _json_text(await views.render_rows(await views.endpoint_rows(request.app[_AGENT])))


async def _endpoint(request: web.Request) -> web.Response:
    lxc_id = _endpoint_id(request)
    for record in await views.endpoint_rows(request.app[_AGENT]):
        if record["id"] == lxc_id:
            return web.json_response(record)
    raise web.HTTPNotFound(text=f"endpoint {lxc_id} is configured but not in the datapath yet")


async def _ipcache(request: web.Request) -> web.Response:
    dp = request.app[_AGENT].dp
    if "ip" in request.query:
        return web.json_response(dump.ipcache_record(_ipcache_lookup(request)))
    cursor, limit = paging(request)
    return _json_text(await views.render_page(dp.ipcache_page, dump.ipcache_record, cursor, limit))


def _ipcache_lookup(request: web.Request) -> IpcacheRow:
    text = request.query["ip"]
    try:
        address = ip_address(text)
    except ValueError:
        raise web.HTTPBadRequest(
            text=f"{text!r} is not an IP address, write it like 10.244.2.171"
        ) from None
    row = request.app[_AGENT].dp.ipcache_lookup(address)
    if row is None:
        raise web.HTTPNotFound(text=f"no ipcache entry holds {address}: it is treated as world")
    return row


async def _ct(request: web.Request) -> web.Response:
    dp = request.app[_AGENT].dp
    name = request.query.get("map", "tcp")
    if name not in {"tcp", "any"}:
        raise web.HTTPBadRequest(text=f"map={name!r} is unknown; use tcp or any")
    if request.headers.get("Accept") == CT_RECORDS:
        return _ct_records(dp, name == "tcp", *paging(request))
    pages = partial(views.ct_page, dp, name == "tcp")
    return _json_text(await views.render_page(pages, dump.ct_record, *paging(request)))


def _ct_records(dp: Datapath, tcp: bool, cursor: int, limit: int) -> web.Response:
    records, following = dp.ct_records(tcp=tcp, cursor=cursor, limit=limit)
    headers = {"Content-Type": CT_RECORDS, NEXT_HEADER: str(following)}
    return web.Response(body=records, headers=headers)


async def _nat(request: web.Request) -> web.Response:
    pages = request.app[_AGENT].dp.nat_page
    return _json_text(await views.render_page(pages, dump.nat_record, *paging(request)))


async def _policy(request: web.Request) -> web.Response:
    rows = await views.policy_rows(request.app[_AGENT], _endpoint_id(request))
    return _json_text(await views.render_rows(rows))


async def _services(request: web.Request) -> web.Response:
    return _json_text(await views.render_rows(await views.service_rows(request.app[_AGENT])))


async def _service(request: web.Request) -> web.Response:
    wanted = request.match_info["service"]
    rows = await views.service_rows(request.app[_AGENT], wanted)
    if not rows:
        raise web.HTTPNotFound(text=f"no service {wanted!r}; see: fwd service list")
    return _json_text(await views.render_rows(rows))


async def _identities(request: web.Request) -> web.Response:
    return _json_text(await views.render_rows(views.identity_rows(request.app[_AGENT])))


async def _nodes(request: web.Request) -> web.Response:
    return _json_text(await views.render_rows(await views.node_rows(request.app[_AGENT])))


async def _metrics(request: web.Request) -> web.Response:
    if "pump" in request.query:
        return web.json_response(request.app[_AGENT].pump_stats())
    rows = request.app[_AGENT].dp.metrics()
    return _json_text(await views.render_rows(map(metric_json, rows)))


async def _maps(_request: web.Request) -> web.Response:
    return web.json_response({"rows": [{"name": name} for name in views.MAPS], "next": 0})


async def _map(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    view = views.MAPS.get(name)
    if view is None:
        raise web.HTTPNotFound(text=f"no map {name!r}; there are: {', '.join(views.MAPS)}")
    return _json_text(await view(request.app[_AGENT], *paging(request)))


async def _prometheus(request: web.Request) -> web.Response:
    body = await metrics_text(request.app[_AGENT])
    return web.Response(body=body, headers={"Content-Type": _METRICS_TYPE})


# ---- the stream and the order ----


async def _monitor(request: web.Request) -> web.StreamResponse:
    names = {name for text in request.query.getall("type", []) for name in text.split(",") if name}
    try:
        subscription = request.app[_AGENT].monitor.subscribe(names)
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    async with subscription:
        try:
            await response.prepare(request)
            await response.write(b"\n")  # the headers leave with the first byte
            await _follow(request, response, subscription)
            await response.write_eof()
        except ConnectionResetError:
            pass  # the client has gone: the usual end of a stream
    return response


async def _follow(
    request: web.Request, response: web.StreamResponse, subscription: Subscription
) -> None:
    while subscription.is_open and request.transport is not None:
        records = await subscription.take(_LOOK_S)
        for start in range(0, len(records), _LINES):
            lines = (json.dumps(record) for record in records[start : start + _LINES])
            await response.write(("\n".join(lines) + "\n").encode())
            await asyncio.sleep(0)


async def _end_streams(app: web.Application) -> None:
    app[_AGENT].monitor.close()


async def _trace(request: web.Request) -> web.Response:
    return web.json_response(trace_packet(request.app[_AGENT], await request.read()))


async def _manifests(request: web.Request) -> web.Response:
    files, delete = parse_order(await request.read())
    return await _obey("manifests", request.app[_AGENT].change_manifests(files, delete=delete))


async def _reload(request: web.Request) -> web.Response:
    return await _obey("reload", request.app[_AGENT].reload())


async def _obey(what: str, work: Awaitable[dict[str, Any]]) -> web.Response:
    try:
        return web.json_response(await work)
    except (ConfigError, DatapathError) as error:
        get_logger().error(f"{what} refused, nothing was changed", error=str(error))
        return _refuse(409, f"nothing was changed: {error}")
