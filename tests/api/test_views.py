"""Answers that join tables, where the loop must stay free."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import pytest

from fwd.api import views
from fwd.api.client import Client

if TYPE_CHECKING:
    from tests.api.daemon import LabDaemon

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The loop of these tests."""
    return "asyncio"


def numbers(cursor: int, limit: int) -> tuple[list[int], int]:
    """A table of the numbers below 1000, paged as the datapath's."""
    end = min(cursor + limit, 1000)
    return list(range(cursor, end)), 0 if end == 1000 else end


@pytest.mark.parametrize(("cursor", "limit", "rows", "following"),
                         [(0, 100, 100, 100), (0, 4096, 1000, 0), (990, 10, 10, 0),
                          (0, 1, 1, 1)])  # fmt: skip
async def test_render_page_fills_and_tells_where_to_go_on(
    cursor: int, limit: int, rows: int, following: int
):
    """Pages are full unless the table ends, and the next cursor continues without a gap."""
    text = await views.render_page(numbers, lambda n: {"n": n}, cursor, limit)
    page = json.loads(text)
    assert [row["n"] for row in page["rows"]] == list(range(cursor, cursor + rows))
    assert page["next"] == following


async def test_render_page_lets_the_loop_run():
    """Rows that take long give the loop its turn after each few of them."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def slowly(number: int) -> dict[str, int]:
        time.sleep(5e-5)
        return {"n": number}

    other = asyncio.ensure_future(count())
    await views.render_page(numbers, slowly, 0, 1000)
    other.cancel()
    assert turns >= 1000 // 8


async def test_map_dumps_are_the_seeds(lab: LabDaemon):
    """Keys and values of the three maps the seed asks for."""
    lab.send()
    with Client(lab.socket) as client:
        ipcache = {row["key"]: row["value"] for row in client.rows("/v1/map/cilium_ipcache")}
        lxc = [(row["key"], row["value"]) for row in client.rows("/v1/map/cilium_lxc")]
        (ct,) = client.rows("/v1/map/cilium_ct4_global")
    assert ipcache["10.244.2.171/32"] == (
        "identity=25002 encryptkey=0 tunnelendpoint=192.168.56.106"
    )
    assert lxc == [
        (
            "10.244.0.108:0",
            "id=2825  flags=0x0000 ifindex=75  mac=96:86:44:A6:37:01 nodemac=D2:AD:65:4D:D0:01",
        ),
        ("10.244.0.150:0", "(localhost)"),
        ("192.168.56.105:0", "(localhost)"),
    ]
    assert ct["key"] == "TCP OUT 10.244.0.108:43512 -> 10.244.2.171:80"
    assert ct["value"].startswith("expires=61 RxPackets=0 ")


async def test_endpoint_id_by_name_and_number(lab: LabDaemon):
    """Ports of the node itself are no endpoints."""
    assert views.endpoint_id(lab.agent, "default/curl") == 2825
    assert views.endpoint_id(lab.agent, "2825") == 2825
    assert views.endpoint_id(lab.agent, "cilium_host") is None
