"""The monitor hub: who listens decides what is written; what is too much is lost and said."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from fwd.datapath.binding import Datapath, Packet
from fwd.model.rows import EndpointRow, LxcRow, Params
from fwd.observe.monitor import MonitorHub, monitor_types
from tests.api.frames import syn, udp

if TYPE_CHECKING:
    from collections.abc import Iterator

PARAMS = Params(ct_tcp=1024, ct_any=1024, ipcache=64, endpoints=8, lxc=8, policy=64, peers=8,
                fragments=64, events=64)  # fmt: skip

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Every test on both loops."""
    return ("asyncio", {"use_uvloop": request.param == "uvloop"})


@contextmanager
def datapath() -> Iterator[Datapath]:
    """One pod that no policy allows anything: each packet is a trace, a verdict and a drop."""
    with Datapath.create(PARAMS) as dp:
        mac, node_mac = bytes.fromhex("968644a63701"), bytes.fromhex("d2ad654dd001")
        dp.endpoint_upsert(EndpointRow(2825, 25001, 75, mac, node_mac))
        dp.lxc_upsert(LxcRow(ip_address("10.244.0.108"), 2825))
        yield dp


def send(dp: Datapath, count: int = 1, frame: bytes = b"") -> None:
    """Let the pod send ``count`` frames."""
    dp.run(10**9, [Packet(frame or syn(), 2825)] * count)


async def test_nobody_listens_nothing_but_drops_is_written():
    """Without listeners the mask keeps drops only; the first listener widens it."""
    with datapath() as dp:
        hub = MonitorHub(dp)
        hub.refresh_mask()
        assert dp.settings.monitor_mask == 1
        with_traces = hub.subscribe({"trace"})
        with_steps = hub.subscribe({"step"})
        assert dp.settings.monitor_mask == 1 | 2 | 8
        with_steps.close()
        assert dp.settings.monitor_mask == 1 | 2
        with_traces.close()
        assert dp.settings.monitor_mask == 1


async def test_subscribers_get_their_types_only():
    """Each listener gets what it asked for, in the order of the ring."""
    with datapath() as dp:
        hub = MonitorHub(dp)
        async with hub.subscribe({"drop"}) as drops, hub.subscribe({"trace", "verdict"}) as others:
            send(dp)
            assert [one["type"] for one in await drops.take(5)] == ["drop"]
            assert [one["type"] for one in await others.take(5)] == ["trace", "policy-verdict"]


async def test_stream_is_live():
    """What happened before the first listener came is not told."""
    with datapath() as dp:
        hub = MonitorHub(dp)
        hub.refresh_mask()
        send(dp, 3)
        async with hub.subscribe({"drop"}) as drops:
            send(dp, frame=udp())
            records = await drops.take(5)
        assert [one["connection"] for one in records] == [
            "10.244.0.108:5353 -> 10.244.2.171:53 udp"
        ]


async def test_slow_listener_loses_and_is_told():
    """A full queue drops the newest and counts; the listener hears how many."""
    with datapath() as dp:
        hub = MonitorHub(dp, capacity=4)
        async with hub.subscribe({"drop"}) as drops:
            send(dp, 10)
            while hub.drain():
                pass
            records = await drops.take(5)
        assert [one["type"] for one in records] == ["drop"] * 4 + ["lost"]
        assert (records[-1]["count"], records[-1]["where"]) == (6, "queue")


async def test_overwritten_ring_is_counted():
    """Events the ring overwrote reach every listener as a number."""
    with datapath() as dp:
        hub = MonitorHub(dp)
        async with hub.subscribe({"drop"}) as drops:
            send(dp, 100)
            while hub.drain():
                pass
            records = await drops.take(5)
        lost = [one for one in records if one["type"] == "lost"]
        assert [one["where"] for one in lost] == ["ring"]
        assert lost[0]["count"] == hub.lost == 100 - (len(records) - 1)


async def test_iteration_ends_with_the_hub():
    """Closing the hub ends every stream after what was queued."""
    with datapath() as dp:
        hub = MonitorHub(dp)
        drops = hub.subscribe({"drop"})
        got: list[dict[str, Any]] = []

        async def follow() -> None:
            got.extend([record async for record in drops])

        reader = asyncio.ensure_future(follow())
        send(dp, 2)
        await asyncio.sleep(0.1)
        hub.close()
        await asyncio.wait_for(reader, 5)
        assert [one["type"] for one in got] == ["drop", "drop"]
        assert (hub.listeners, drops.is_open) == (0, False)


async def test_take_times_out_empty():
    """Nothing happens, nothing is returned, and not before the time."""
    with datapath() as dp:
        async with MonitorHub(dp).subscribe() as all_of_it:
            assert await all_of_it.take(0.01) == []


async def test_rules_are_asked_for_policy_events_only():
    """Traces and other drops carry no rule, though the last one is still in the event."""
    asked: list[int] = []

    def rule_of(event: Any) -> dict[str, Any]:
        asked.append(event.type)
        return {"kind": "default-allow", "endpoint": "x", "direction": "egress"}

    with datapath() as dp:
        async with MonitorHub(dp, rule_of).subscribe() as events:
            send(dp)
            send(dp, frame=b"\0" * 20)
            records = await events.take(5)
            if len(records) < 5:
                records += await events.take(5)
    assert asked == [5, 1]
    with_rule = [one["type"] for one in records if "rule" in one]
    assert with_rule == ["policy-verdict", "drop"]


async def test_monitor_types_knows_aliases_and_refuses_others():
    """Both names of verdicts work; a typo names what there is."""
    assert monitor_types(["verdict"]) == {"policy-verdict"}
    assert monitor_types([]) == {"drop", "trace", "policy-verdict"}
    with pytest.raises(ValueError, match="'frob' is no event type; use one of drop, policy"):
        monitor_types(["drop", "frob"])
