"""The API of a daemon whose start was refused: why, and one order, to try it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import socket

from aiohttp import web

from fwd.config.load import ConfigError
from fwd.control.refusal import Refusal
from fwd.datapath.errors import DatapathError
from fwd.netlink.errors import LinkError

__all__ = ["answering"]

_SHUTDOWN_S = 2.0


@asynccontextmanager
async def answering(refusal: Refusal, listener: socket | None = None) -> AsyncIterator[None]:
    """Answer clients on systemd's listener while a start stands refused.

    Args:
        refusal: why, and who tries again.
        listener: as of ``serving``, which it is left to; None = there is none, and no answer: where
            the API's socket is, a node file says.
    """
    if listener is None:
        yield
        return

    async def reload(_request: web.Request) -> web.Response:
        try:
            return web.json_response(await refusal.obey())
        except (ConfigError, LinkError) as error:
            return web.json_response({"error": f"nothing was changed: {error}"}, status=409)
        except (DatapathError, OSError) as error:
            return web.json_response({"error": f"the daemon ends: {error}"}, status=500)

    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"error": refusal.text}, status=503)

    app = web.Application()
    app.add_routes([web.post("/v1/reload", reload), web.route("*", "/{rest:.*}", refuse)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listener.dup()).start()
        yield
    finally:
        await runner.cleanup()
