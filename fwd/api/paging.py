"""Which page of a table a request asks for."""

from __future__ import annotations

from aiohttp import web

__all__ = ["paging"]

_LIMIT_DEFAULT, _LIMIT_MAX = 1024, 4096
"""Rows a request."""


def paging(request: web.Request) -> tuple[int, int]:
    """Return ``cursor`` and ``limit`` of a request.

    Raises:
        web.HTTPBadRequest: one of them is no number, or too large.
    """
    limit = _number(request, "limit", _LIMIT_DEFAULT, _LIMIT_MAX)
    return _number(request, "cursor", 0, (1 << 64) - 1), max(1, limit)


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise web.HTTPBadRequest(text=f"{name}={text!r} is not a number from 0 to {most}")
    return int(text)
