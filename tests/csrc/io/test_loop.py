"""One wake-up of the pump: budget, fairness, lingering."""

from __future__ import annotations

import time

from tests.csrc.io.rig import REMOTE, Rig, tcp


def test_idle_pump_returns_at_once():
    """No work: no packets, no lingering."""
    with Rig() as rig:
        before = time.perf_counter()
        assert rig.pump.run(1_000_000_000, 1_000_000_000) == 0
        assert time.perf_counter() - before < 0.5
        assert rig.pump.stats()["wakeups"] == 0


def test_pump_lingers_after_work_but_not_beyond_its_budget():
    """After work it waits for more; the budget bounds the whole call."""
    with Rig() as rig:
        rig.send(11, tcp(11, REMOTE))
        before = time.perf_counter()
        assert rig.pump.run(30_000_000, 10_000_000_000) == 1
        assert 0.025 < time.perf_counter() - before < 0.5


def test_budget_ends_a_flood():
    """With more frames waiting than a budget moves, the call returns and the next goes on."""
    with Rig() as rig:
        for _ in range(200):
            rig.peer.sendto(b"x" * 40, ("127.0.0.1", rig.port))
        first = rig.pump.run(1, 0)
        assert first == 32
        assert rig.run() == 168


def test_flooding_pod_does_not_starve_another():
    """Each ready descriptor gets one batch a turn, also when the budget cuts turns short."""
    with Rig() as rig:
        for number in range(200):
            rig.peer.sendto(b"x" * 40, ("127.0.0.1", rig.port))
            if number < 3:
                rig.send(12, tcp(12, REMOTE))
        for _ in range(3):
            rig.pump.run(1, 0)  # one batch each
        assert len(rig.datagrams()) == 3
