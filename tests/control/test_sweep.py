"""Conntrack's garbage collection: intervals, the sweep, purging an endpoint's connections."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.control import sweep as sweep_module
from fwd.control.sweep import (
    MAX_INTERVAL_S,
    MIN_INTERVAL_S,
    START_INTERVAL_S,
    ConntrackSweep,
    next_interval_s,
    now_s,
    purge,
    purge_services,
)
from fwd.datapath.packet import PORT_NETDEV, Packet
from fwd.model.rows import BackendRow, ServiceRow
from tests.csrc.io.rig import POD, REMOTE, Rig, tcp

S_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("interval_s", "ratio", "expected_s"),
    [
        (300, 0.0, 450),
        (300, 0.049, 450),
        (300, 0.05, 300),
        (300, 0.25, 300),
        (300, 0.5, 150),
        (300, 1.0, 30),
        (20, 0.9, 10),
        (1700, 0.01, 1800),
    ],
)
def test_interval_follows_what_the_run_deleted(interval_s, ratio, expected_s):
    """Shorter above a quarter, longer below a twentieth, within limits."""
    assert next_interval_s(interval_s, ratio) == pytest.approx(expected_s)


@given(st.floats(MIN_INTERVAL_S, MAX_INTERVAL_S), st.floats(0, 1))
def test_interval_stays_within_its_limits(interval_s, ratio):
    """Whatever a run deletes."""
    assert MIN_INTERVAL_S <= next_interval_s(interval_s, ratio) <= MAX_INTERVAL_S


def connect(rig: Rig, count: int) -> None:
    """Let pod 11 open connections to the remote pod."""
    for number in range(count):
        rig.send(11, tcp(11, REMOTE, dport=1000 + number))
        rig.run()


def test_sweep_deletes_what_has_expired(monkeypatch):
    """Nothing while connections live, all of them and their companions later."""

    async def main() -> None:
        with Rig() as rig:
            connect(rig, 50)
            sweep = ConntrackSweep(rig.dp)
            before = rig.dp.stats("ct_tcp").count
            assert before >= 50
            assert await sweep.sweep(tcp=True) == 0
            monkeypatch.setattr(sweep_module, "now_s", lambda: now_s() + 3600)
            assert await sweep.sweep(tcp=True) == before
            assert rig.dp.stats("ct_tcp").count == 0
            assert (sweep.runs, sweep.deleted) == (2, before)

    asyncio.run(main())


def test_nat_sweep_walks_the_whole_table_in_steps(monkeypatch):
    """Mappings whose connection conntrack does not know go, however many steps it takes."""

    async def main() -> None:
        with Rig() as rig:
            rig.dp.set_settings(
                replace(rig.dp.settings, masquerade=True, node_ip=IPv4Address("192.0.2.1"))
            )
            frames = [tcp(11, "203.0.113.9", dport=1000 + number) for number in range(20)]
            rig.dp.run(0, [Packet(frame, PORT_NETDEV, to_netdev=True) for frame in frames])
            assert rig.dp.stats("nat").count == 40
            assert await ConntrackSweep(rig.dp).sweep_nat() == 20
            assert rig.dp.stats("nat").count == 0

    monkeypatch.setattr(sweep_module, "STEP", 3)
    asyncio.run(main())


def test_sweep_gives_the_loop_its_turn(monkeypatch):
    """A table longer than a step is walked in several turns."""

    async def main() -> int:
        with Rig() as rig:
            connect(rig, 20)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            other = asyncio.ensure_future(count())
            await ConntrackSweep(rig.dp).sweep(tcp=True)
            other.cancel()
            return turns

    monkeypatch.setattr(sweep_module, "STEP", 2)
    assert asyncio.run(main()) >= 5


def test_full_table_is_swept_at_once(monkeypatch):
    """Evictions and refused inserts start a run before it is due."""

    async def main() -> int:
        with Rig() as rig:
            sweep = ConntrackSweep(rig.dp)
            task = asyncio.ensure_future(sweep.run())
            connect(rig, 30)
            await asyncio.sleep(0.05)
            assert sweep.runs == 0
            real = rig.dp.stats

            class Pressed:
                evictions, failures, count = 3, 0, 1

            monkeypatch.setattr(
                rig.dp, "stats", lambda table: Pressed if table == "ct_tcp" else real(table)
            )
            await asyncio.sleep(0.05)
            task.cancel()
            return sweep.runs

    monkeypatch.setattr(sweep_module, "TICK_S", 0.01)
    assert asyncio.run(main()) == 1


def test_tables_are_not_looked_at_before_packets_move(monkeypatch):
    """An idle daemon sleeps until a sweep is due; a packet ends its sleep."""

    async def main() -> None:
        with Rig() as rig:
            looks, waits = [], []
            packet = asyncio.Event()

            async def moved(timeout_s: float) -> None:
                waits.append(timeout_s)
                await asyncio.wait({asyncio.ensure_future(packet.wait())}, timeout=timeout_s)
                packet.clear()

            real = rig.dp.stats
            monkeypatch.setattr(rig.dp, "stats", lambda table: looks.append(table) or real(table))
            sweep = ConntrackSweep(rig.dp, moved)
            task = asyncio.ensure_future(sweep.run())
            await asyncio.sleep(0.1)
            assert (looks, len(waits)) == ([], 1)
            assert waits[0] == pytest.approx(START_INTERVAL_S, abs=1)
            packet.set()
            await asyncio.sleep(0.1)
            assert set(looks) == {"ct_tcp", "ct_any", "nat"}
            assert (sweep.runs, len(waits)) == (0, 2)
            sweep._schedules[False].due_s = 0.0
            packet.set()
            await asyncio.sleep(0.1)
            assert sweep.runs == 1
            task.cancel()

    monkeypatch.setattr(sweep_module, "TICK_S", 0.01)
    asyncio.run(main())


def test_nat_table_out_of_ports_is_swept_at_once(monkeypatch):
    """Expired connections go and take their mappings along, although conntrack has room."""

    async def main() -> None:
        with Rig() as rig:
            rig.dp.set_settings(
                replace(rig.dp.settings, masquerade=True, node_ip=IPv4Address("192.0.2.1"))
            )
            frames = [tcp(11, "203.0.113.9", dport=1000 + number) for number in range(20)]
            rig.dp.run(0, [Packet(frame, PORT_NETDEV, to_netdev=True) for frame in frames])
            assert rig.dp.stats("nat").count == 40
            sweep = ConntrackSweep(rig.dp)
            real, used = rig.dp.stats, rig.dp.stats("nat")
            refused = replace(used, failures=used.failures + 1)
            monkeypatch.setattr(
                rig.dp, "stats", lambda table: refused if table == "nat" else real(table)
            )
            task = asyncio.ensure_future(sweep.run())
            await asyncio.sleep(0.1)
            task.cancel()
            assert sweep.runs == 2
            assert real("nat").count == 0

    monkeypatch.setattr(sweep_module, "TICK_S", 0.01)
    asyncio.run(main())


def test_sweep_under_pressure_never_lengthens_the_interval(monkeypatch):
    """That nothing had expired in the middle of a flood says nothing about the time after it."""

    async def main() -> None:
        with Rig() as rig:
            connect(rig, 50)
            sweep = ConntrackSweep(rig.dp)
            schedule = sweep._schedules[True]
            for _ in range(5):
                await sweep.sweep(tcp=True, pressed=True)
            assert schedule.interval_s == START_INTERVAL_S
            await sweep.sweep(tcp=True)
            assert schedule.interval_s == START_INTERVAL_S * 1.5
            monkeypatch.setattr(sweep_module, "now_s", lambda: now_s() + 3600)
            await sweep.sweep(tcp=True, pressed=True)
            assert schedule.interval_s < START_INTERVAL_S

    asyncio.run(main())


def test_purge_takes_both_directions_of_an_address_and_nothing_else():
    """Connections of a pod that went, as source and as destination."""

    async def main() -> None:
        with Rig() as rig:
            connect(rig, 10)
            rig.send(12, tcp(12, REMOTE))
            rig.send(12, tcp(12, POD[11][0], dport=9999))
            rig.run()
            gone = IPv4Address(POD[11][0])
            assert await purge(rig.dp, [gone]) > 10
            left = [*rig.dp.ct(tcp=True), *rig.dp.ct(tcp=False)]
            assert left
            assert not any(gone in {row.saddr, row.daddr} for row in left)

    asyncio.run(main())


def test_purge_services_ends_what_has_lost_its_backend(monkeypatch):
    """Flows through a service go with its last backend, in steps; direct ones stay."""

    async def main() -> None:
        with Rig() as rig:
            vip, backend = IPv4Address("10.96.0.1"), IPv4Address(REMOTE)
            rig.dp.backend_upsert(BackendRow(1, backend, 0, 6))
            rows = [ServiceRow(vip, n, 6, 0, 0, n, backends=(1,)) for n in range(1000, 1010)]
            for row in rows:
                rig.dp.service_upsert(row)
                rig.send(11, tcp(11, str(vip), dport=row.port))
                rig.run()
            rig.send(11, tcp(11, REMOTE, dport=999))
            rig.run()
            assert await purge_services(rig.dp) == 0
            for row in rows:
                rig.dp.service_upsert(replace(row, backends=()))
            assert await purge_services(rig.dp) == 20
            assert [row.dport for row in rig.dp.ct(tcp=True)] == [999]

    monkeypatch.setattr(sweep_module, "SERVICE_STEP", 3)
    asyncio.run(main())
