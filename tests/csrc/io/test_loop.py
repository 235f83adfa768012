"""One wake-up of the pump: budget, fairness, lingering, and asking again before going to sleep."""

from __future__ import annotations

import threading
import time

from tests.csrc.io.rig import REMOTE, Rig, tcp

S_NS, MS_NS = 1_000_000_000, 1_000_000


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


def test_spinning_finds_what_comes_soon():
    """What comes while it spins is moved in the same call, without a sleep."""
    with Rig() as rig:
        rig.pump.set_spin(300 * MS_NS)
        rig.send(11, tcp(11, REMOTE))
        late = threading.Timer(0.02, rig.send, (12, tcp(12, REMOTE)))
        late.start()
        assert rig.pump.run(200 * MS_NS, 0) == 2
        late.join()
        stats = rig.pump.stats()
        assert stats["spin_hits"] == 1
        assert stats["spins"] == 2


def test_vain_spins_become_rare():
    """After spins that found nothing it tries ever less often, and again after one that did."""
    with Rig() as rig:
        rig.pump.set_spin(100_000)
        for _ in range(300):
            rig.send(11, tcp(11, REMOTE))
            rig.pump.run(MS_NS, 0)
        assert rig.pump.stats()["spins"] < 20
        rig.pump.set_spin(0)
        before = rig.pump.stats()["spins"]
        rig.send(11, tcp(11, REMOTE))
        rig.pump.run(MS_NS, 0)
        assert rig.pump.stats()["spins"] == before
