"""The asyncio side of the pump, on uvloop and on asyncio's own loop."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import uvloop
from scapy.layers.l2 import ARP, Ether

from fwd.datapath.binding import Pump
from fwd.datapath.pump import PUNTS_PER_TURN, PumpLoop
from tests.csrc.io.rig import POD, REMOTE, Rig, tcp

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.fixture(params=RUNNERS.values(), ids=RUNNERS)
def run(request) -> Callable[[Coroutine[object, object, None]], None]:
    """Run a coroutine on one of the loops."""
    return request.param


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds, at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the other side is a C loop
            await asyncio.sleep(0.001)


class Recorder:
    """A rig whose pump is a PumpLoop, and what it was told."""

    def __init__(self, rig: Rig, answer: bytes | None = b"answer" * 8) -> None:
        self.punts = []
        self.gone = []
        self.answer = answer
        rig.pump.close()
        self.loop = PumpLoop(rig.dp, self._on_punt, self.gone.append)
        rig.pump = self.loop.pump
        rig.pump.add_udp(rig.underlay.fileno())
        for port, sock in rig.ours.items():
            rig.pump.add_tap(port, sock.fileno(), 12)

    def _on_punt(self, punt):
        self.punts.append(punt)
        return self.answer


def arp() -> bytes:
    """An ARP request of pod 11."""
    address, mac = POD[11]
    frame = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff")
    return bytes(frame / ARP(op=1, hwsrc=mac, psrc=address, pdst="10.0.0.1"))


def test_packets_move_by_themselves(run):
    """A frame written by a pod reaches the peer without anybody calling."""

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            recorder.loop.start()
            rig.send(11, tcp(11, REMOTE))
            got = []
            await until(lambda: got.extend(rig.datagrams()) or got)
            recorder.loop.close()
            assert len(got) == 1

    run(main())


def test_moved_waits_for_packets(run):
    """Everybody who waits is woken by the next packet, or by the clock."""

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            recorder.loop.start()
            await recorder.loop.moved(0.01)
            waiting = [asyncio.ensure_future(recorder.loop.moved()) for _ in range(2)]
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in waiting)
            waiting.pop().cancel()
            rig.send(11, tcp(11, REMOTE))
            await asyncio.wait_for(waiting[0], 5)
            recorder.loop.close()

    run(main())


def test_answer_of_a_punt_goes_back_to_its_pod(run):
    """What on_punt returns is written to the port the frame came from."""

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            recorder.loop.start()
            rig.send(11, arp())
            got = []
            await until(lambda: got.extend(rig.received(11)) or got)
            recorder.loop.close()
            assert got == [(bytes(12), b"answer" * 8)]
            assert [(punt.port, punt.data) for punt in recorder.punts] == [(11, arp())]

    run(main())


def test_many_punts_are_answered_in_turns(run):
    """More punts than a turn takes: all are answered, in order, none twice."""

    async def main():
        with Rig() as rig:
            settings = replace(rig.dp.settings, punt_rate_pps=1_000_000, punt_burst=100_000)
            rig.dp.set_settings(settings)
            recorder = Recorder(rig, answer=None)
            recorder.loop.start()
            many = 3 * PUNTS_PER_TURN + 1
            for number in range(many):
                rig.send(11, arp() + bytes([number]))
                await asyncio.sleep(0)
            await until(lambda: len(recorder.punts) == many)
            recorder.loop.close()
            assert [punt.data[-1] for punt in recorder.punts] == list(range(many))
            assert rig.received(11) == []

    run(main())


def test_answer_to_a_vanished_pod_is_counted(run):
    """The pod may go between its question and the answer."""

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            rig.send(11, arp())
            rig.pump.run(1_000_000, 0)
            rig.pump.remove(11)
            rig.send(12, tcp(12, REMOTE))
            recorder.loop.start()
            await until(lambda: recorder.loop.punt_write_errors == 1)
            recorder.loop.close()

    run(main())


def test_vanished_device_is_reported(run):
    """on_gone hears of the port once, the other pod goes on."""

    async def main():
        with Rig(kind=socket.SOCK_SEQPACKET) as rig:
            recorder = Recorder(rig)
            recorder.loop.start()
            rig.pods.pop(12).close()
            await until(lambda: recorder.gone)
            rig.send(11, tcp(11, REMOTE))
            got = []
            await until(lambda: got.extend(rig.datagrams()) or got)
            recorder.loop.close()
            assert recorder.gone == [12]

    run(main())


def test_flood_leaves_the_loop_its_turns(run):
    """While frames keep coming, other callbacks run at least every few milliseconds of CPU."""

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            recorder.loop.start()
            loop, longest = asyncio.get_running_loop(), 0.0
            end = loop.time() + 0.3
            while loop.time() < end:
                before = time.thread_time()  # not the wall's: neighbours take the CPU for longer
                for _ in range(20):
                    rig.send(11, tcp(11, POD[12][0]))
                rig.received(12)
                await asyncio.sleep(0)
                longest = max(longest, time.thread_time() - before)
            recorder.loop.close()
            assert longest < 0.1
            assert rig.dp.stats("ct_tcp").count >= 1

    run(main())


def test_progress_is_denied_while_packets_wait_unread(run):
    """Idle and working pumps progress; one whose loop no longer looks at its packets does not."""

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            assert recorder.loop.progress()
            assert recorder.loop.progress(), "nothing to do is no standstill"
            rig.send(11, tcp(11, REMOTE))
            assert not recorder.loop.progress(), "it was never started"
            recorder.loop.start()
            await until(recorder.loop.progress)
            got = []
            await until(lambda: got.extend(rig.datagrams()) or got)
            assert recorder.loop.progress()
            asyncio.get_running_loop().remove_reader(recorder.loop.pump.epoll_fd)
            rig.send(11, tcp(11, REMOTE))
            recorder.loop.progress()
            assert not recorder.loop.progress()
            recorder.loop.close()

    run(main())


@pytest.mark.parametrize(("spin_ns", "runs"), [(0, 1), (1, 2)])
def test_run_that_its_budget_ended_is_followed_by_another(run, monkeypatch, spin_ns, runs):
    """With spin the next run needs no event; without, the loop sleeps in between."""
    budgets = []
    pump_run = Pump.run

    def counted(self, budget_ns, linger_ns):
        budgets.append(budget_ns)
        return pump_run(self, budget_ns, linger_ns)

    async def main():
        with Rig() as rig:
            recorder = Recorder(rig)
            rig.pump.set_spin(spin_ns)
            recorder.loop.start()
            rig.send(11, tcp(11, REMOTE))
            await asyncio.sleep(0.05)
            recorder.loop.close()

    monkeypatch.setattr("fwd.datapath.pump.BUDGET_NS", 1)
    monkeypatch.setattr(Pump, "run", counted)
    run(main())
    assert budgets == [1] * runs
