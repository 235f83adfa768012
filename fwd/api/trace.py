"""POST /v1/trace: a packet on a view of the live tables, which changes nothing.

The body is one JSON object: ``flow`` with optional ``ct`` and ``sport``, or ``frame`` (hex) with
``port`` and, where it needs them, ``hook``, ``gso_size``, ``csum_start`` and ``csum_offset``, as in
a step of replay. The answer is that of fwd/control/trace.py.
"""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web

from fwd.api.views import Agent
from fwd.control.trace import TraceError, TraceRequest, trace

__all__ = ["trace_packet"]

_KEYS = {"flow": str, "ct": str, "sport": int, "frame": str, "port": str, "hook": str,
         "gso_size": int, "csum_start": int, "csum_offset": int}  # fmt: skip


def trace_packet(agent: Agent, body: bytes) -> dict[str, Any]:
    """Trace what ``body`` asks for on the daemon's tables.

    Args:
        agent: whose tables.
        body: of the request.

    Raises:
        web.HTTPBadRequest: it is no request, or there is no such thing on this node.
    """
    try:
        request = _request(body)
        with agent.view() as view:
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # as the pump's
            return trace(view, agent.node, agent.world, request, now_ns)
    except TraceError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


def _request(body: bytes) -> TraceRequest:
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise TraceError(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise TraceError("the body is not a JSON object")
    for key, value in fields.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise TraceError(f"{key}: unknown key, known: {', '.join(_KEYS)}")
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TraceError(f"{key}: {value!r} is not {kind.__name__}")
    if fields.get("frame") is not None:
        try:
            fields["frame"] = bytes.fromhex(fields["frame"])
        except ValueError:
            raise TraceError("frame: not hex, write two digits a byte") from None
    return TraceRequest(**fields)
