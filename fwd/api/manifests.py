"""Orders about manifests: the body of POST /v1/manifests.

``{"action": "apply" | "delete", "files": [{"name", "text", "namespace"}]}``; the client reads the
files, ``namespace`` is that of objects which name none and may be left out.
"""

from __future__ import annotations

import json

from aiohttp import web

from fwd.control.node_source import ManifestFile

__all__ = ["parse_order"]


def parse_order(body: bytes) -> tuple[list[ManifestFile], bool]:
    """Return the files, and whether their objects are to be deleted.

    Raises:
        HTTPBadRequest: the body is something else.
    """
    try:
        order = json.loads(body)
        delete = {"apply": False, "delete": True}[order["action"]]
        files = [ManifestFile(**file) for file in order["files"]]
    except (ValueError, KeyError, TypeError):
        files, delete = [], False
    if not files or not all(isinstance(text, str) for file in files for text in file):
        raise web.HTTPBadRequest(
            text='the body is {"action": "apply" or "delete", "files": [{"name", "text"}]}'
        )
    return files, delete
