"""One wake-up of the pump: budget, fairness, lingering."""

from __future__ import annotations

import threading
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


def test_spin_finds_what_comes_meanwhile():
    """A frame sent during the busy wait is moved by the same call."""
    with Rig() as rig:
        rig.pump.set_spin(2_000_000_000)
        rig.send(11, tcp(11, REMOTE))
        late = threading.Timer(0.05, rig.send, (12, tcp(12, REMOTE)))
        late.start()
        assert rig.pump.run(10_000_000, 0) == 2
        late.join()
        assert (rig.pump.stats()["spins"], rig.pump.stats()["spin_hits"]) == (1, 1)


def test_spins_in_vain_become_rare():
    """After each miss twice as many chances and two are left out, so that periods are odd."""
    with Rig() as rig:
        rig.pump.set_spin(40_000_000)  # far longer than a yield on a busy machine
        spun = []
        for number in range(1, 27):
            rig.send(11, tcp(11, REMOTE))
            before = rig.pump.stats()["spins"]
            assert rig.pump.run(1_000_000_000, 0) == 1
            if rig.pump.stats()["spins"] > before:
                spun.append(number)
        assert spun == [1, 4, 11, 26]
        assert rig.pump.stats()["spin_hits"] == 0


def test_spin_on_a_crowded_core_is_given_up():
    """A yield that takes as long as the whole spin: 62 chances are left out at once."""
    with Rig() as rig:
        rig.pump.set_spin(1)
        for _ in range(63):
            rig.send(11, tcp(11, REMOTE))
            assert rig.pump.run(1_000_000_000, 0) == 1
        assert rig.pump.stats()["spins"] == 1
        rig.send(11, tcp(11, REMOTE))
        rig.pump.run(1_000_000_000, 0)
        assert rig.pump.stats()["spins"] == 2


def bulk(rig):
    """More than counts as a little work."""
    for _ in range(20):
        rig.send(11, tcp(11, REMOTE, b"x" * 1000))


def test_bulk_and_round_trips_have_their_own_chances():
    """Misses after a little work do not keep the pump from spinning in bulk, nor the other way."""
    with Rig() as rig:
        rig.pump.set_spin(40_000_000)
        for spins in (1, 1, 1, 2):  # a miss, two chances left out, and the next
            rig.send(11, tcp(11, REMOTE))
            assert rig.pump.run(1_000_000_000, 0) == 1
            assert rig.pump.stats()["spins"] == spins
        for spins in (3, 3, 3, 4):
            bulk(rig)
            assert rig.pump.run(1_000_000_000, 0) == 20
            assert rig.pump.stats()["spins"] == spins


def test_crowded_core_is_no_reason_to_stop_in_bulk():
    """A long yield is a miss like another there: the 4th chance is taken again, not the 64th."""
    with Rig() as rig:
        rig.pump.set_spin(1)
        for spins in (1, 1, 1, 2):
            bulk(rig)
            assert rig.pump.run(1_000_000_000, 0) == 20
            assert rig.pump.stats()["spins"] == spins


def test_budget_that_ends_in_the_midst_of_packets_asks_for_more():
    """`eager` is about the last run alone, and never without spin."""
    with Rig() as rig:
        for spin_ns, expected in ((0, False), (1, True)):
            rig.pump.set_spin(spin_ns)
            rig.send(11, tcp(11, REMOTE))
            assert rig.pump.run(1, 0) == 1
            assert rig.pump.eager is expected
        assert rig.pump.run(1_000_000, 0) == 0
        assert not rig.pump.eager
