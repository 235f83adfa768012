"""Conntrack as the datapath's own records, for `fwd ct list`; others get JSON (fwd/api/server.py).

A million rows cost a daemon as JSON a quarter of a minute, as copies of its records a twentieth of
a second. The client asks for records of the layout it knows; a daemon of another version does not
know that name and answers with JSON, as to everybody who does not ask.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fwd.datapath.binding import ABI_VERSION
from fwd.datapath.convert import ct_rows
from fwd.observe.dump import ct_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.api.client import Client

__all__ = ["CT_RECORDS", "NEXT_HEADER", "ct_entries"]

CT_RECORDS = f"application/vnd.fwd.ct-records; abi={ABI_VERSION}"
"""Content type of a page of ``struct fwd_ct_row`` (csrc/abi.h)."""
NEXT_HEADER = "Fwd-Next"
"""Where such a page says with which cursor to go on, 0 = that was the end."""
_PAGE_ROWS = 1024
"""A hundred kilobytes: what a socket takes at once."""


def ct_entries(client: Client, name: str) -> Iterator[dict[str, Any]]:
    """Walk a conntrack map (``tcp`` or ``any``) page by page; raises as ``Client.get``."""
    cursor = 0
    while True:
        kind, following, body = client.fetch(
            "/v1/ct", (CT_RECORDS, NEXT_HEADER), map=name, cursor=cursor, limit=_PAGE_ROWS
        )
        if kind == CT_RECORDS:
            yield from map(ct_record, ct_rows(body))
            cursor = int(following)
        else:
            page = json.loads(body)
            yield from page["rows"]
            cursor = int(page["next"])
        if cursor == 0:
            return
