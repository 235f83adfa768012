"""Cursor and limit of a request: defaults, bounds, refusals."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from fwd.api.paging import paging


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("", (0, 1024)),
        ("?limit=4096&cursor=7", (7, 4096)),
        ("?limit=0", (0, 1)),
        ("?cursor=18446744073709551615", ((1 << 64) - 1, 1024)),
    ],
)
def test_a_page_is_what_was_asked_for(query: str, page: tuple[int, int]):
    """A thousand rows from the start unless the request says otherwise, and never none."""
    assert paging(make_mocked_request("GET", f"/v1/ct{query}")) == page


@pytest.mark.parametrize("query", ["limit=4097", "limit=x", "cursor=-1", "cursor=²"])
def test_nonsense_is_refused_by_name(query: str):
    """The answer names the parameter and what it may be."""
    name, _, value = query.partition("=")
    with pytest.raises(web.HTTPBadRequest) as caught:
        paging(make_mocked_request("GET", f"/v1/ct?{query}"))
    assert (caught.value.text or "").startswith(f"{name}={value!r} is not a number from 0 to ")
