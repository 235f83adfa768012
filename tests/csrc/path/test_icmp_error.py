"""Rows of ICMP errors and neighbour discovery, csrc/path/icmp_error.c."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fwd.control.apply import apply, diff
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import Packet
from fwd.model.enums import Drop, Verdict
from tests.csrc.path.answers import sums_are_right
from tests.csrc.path.build import build
from tests.csrc.path.rows import DEFAULTS, balance, load, run, world_of

ROWS = load("icmp_error")


@pytest.mark.parametrize("name", ROWS)
def test_icmp_error_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


CURL, ANSWERED_TTL, SENT = 2825, 104, 103


def datapath() -> Datapath:
    """The world where every sender is told."""
    world = world_of("icmp")
    dp = Datapath.create(world.params)
    apply(dp, diff(None, world))
    return dp


def counted(dp: Datapath, reason: int) -> int:
    """Packets of a metric reason, all directions."""
    return sum(row.packets for row in dp.metrics() if row.reason == reason)


def test_errors_are_limited_a_pod_and_never_cost_it_its_arp() -> None:
    """Beyond the burst the packets die in silence, counted as drops; ARP goes on."""
    expiring = Packet(build({**DEFAULTS["curl"], "ttl": 0, "dst": "8.8.8.8", "udp": {}}), CURL)
    arp = Packet(build({**DEFAULTS["curl"], "arp": {"op": 1, "pdst": "10.244.0.150"}}), CURL)
    with datapath() as dp:
        dp.set_settings(replace(dp.settings, punt_rate_pps=10, punt_burst=5))
        outcomes = dp.run(10**9, [expiring] * 8)
        assert [o.verdict for o in outcomes] == [Verdict.TX_ENDPOINT] * 5 + [Verdict.DROP] * 3
        assert {o.drop for o in outcomes} == {Drop.TTL_EXCEEDED}
        assert dp.run(10**9, [arp])[0].verdict == Verdict.PUNT
        assert dp.run(2 * 10**9, [expiring])[0].verdict == Verdict.TX_ENDPOINT
        assert (counted(dp, ANSWERED_TTL), counted(dp, SENT)) == (6, 6)
        assert counted(dp, Drop.TTL_EXCEEDED) == 3
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == 10


def test_an_answered_packet_is_reported_as_it_was_sent() -> None:
    """The monitor's drop event holds the reason and the packet, not the error about it."""
    frame = build({**DEFAULTS["curl"], "ttl": 0, "dst": "8.8.8.8", "udp": {"sport": 5}})
    with datapath() as dp:
        dp.set_settings(replace(dp.settings, monitor_mask=1))
        dp.run(10**9, [Packet(frame, CURL)])
        events, _ = dp.events()
    assert [(event.subtype, event.data) for event in events] == [(Drop.TTL_EXCEEDED, frame)]


def test_a_super_packet_is_answered_with_an_ordinary_frame() -> None:
    """A partial checksum of the packet is not one of the error."""
    spec = {**DEFAULTS["curl"], "df": True, "tcp": {"sport": 5, "dport": 80}, "fill": 9000}
    packet = Packet(build(spec), CURL, gso_size=1400, csum_start=34, csum_offset=16)
    with datapath() as dp:
        (outcome,) = dp.run(10**9, [packet])
    assert outcome.drop == Drop.FRAGMENTATION_NEEDED
    assert sums_are_right(outcome.frame)


@pytest.mark.parametrize(("src", "dst"), [("10.244.0.108", "8.8.8.8"), ("fd00::108", "fd00:9::1")])
def test_an_errors_family_is_the_packets(src: str, dst: str) -> None:
    """A router address of the other family, as damaged settings may hold, costs no byte more."""
    with datapath() as dp:
        ours = dp.settings
        swapped = replace(ours, router_ip4=ours.router_ip6, router_ip6=ours.router_ip4)
        dp.set_settings(swapped)
        frame = build({**DEFAULTS["curl"], "src": src, "dst": dst, "ttl": 1, "udp": {"dport": 9}})
        (outcome,) = dp.run(10**12, [Packet(frame, CURL)])
        assert (outcome.verdict, outcome.drop) == (Verdict.TX_ENDPOINT, Drop.TTL_EXCEEDED)
        assert outcome.frame[12:14] == frame[12:14]
        assert len(outcome.frame) == len(frame) + (28 if ":" not in src else 48)
