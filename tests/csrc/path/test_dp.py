"""csrc/path/dp.c: drops that need many packets or a broken caller, and the sum of the counters."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.datapath.binding import Datapath, ffi, lib
from fwd.datapath.packet import PORT_HOST, PORT_OVERLAY, Packet
from fwd.model.enums import OBS_TEXT, Drop, Verdict
from tests.csrc.path.build import build, vxlan
from tests.csrc.path.rows import DEFAULTS, balance

HERE = Path(__file__).parent
CURL = 2825


def datapath(**params: int) -> Datapath:
    """The base world with other capacities."""
    world = compile_world(load_node_file(HERE / "worlds" / "base.yaml"))
    dp = Datapath.create(replace(world.params, **params))
    apply(dp, diff(None, replace(world, params=dp.params)))
    return dp


def udp(sport: int) -> Packet:
    """A datagram of curl to nginx."""
    return Packet(build({**DEFAULTS["curl"], "udp": {"sport": sport, "dport": 53}}), CURL)


def answer(dport: int) -> Packet:
    """A reply of nginx to ``udp``."""
    spec = {**DEFAULTS["overlay"], "udp": {"sport": 53, "dport": dport}}
    frame = vxlan(25002, build(spec))
    return Packet(frame, PORT_OVERLAY, outer_src=IPv4Address("192.168.56.106"))


def test_drop_ct_map_insertion_failed_when_full_of_live_flows() -> None:
    """155, counted; answered flows are never evicted for new ones and go on."""
    with datapath(ct_any=16) as dp:
        for i in range(17):
            outcomes = dp.run(10**9, [udp(1000 + i), answer(1000 + i)])
        assert outcomes[0].drop == Drop.CT_MAP_INSERTION_FAILED
        alive = [row for row in dp.ct(tcp=False) if row.rx_packets and row.tx_packets]
        assert len(alive) == 16
        assert dp.run(2 * 10**9, [udp(1000)])[0].verdict == Verdict.TX_UNDERLAY
        assert dp.stats("ct_any").failures > 0
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == 35


def test_drop_rate_limited_when_a_pod_floods_the_slow_path() -> None:
    """198 once the bucket is empty; a second later there are tokens again."""
    arp = Packet(build({**DEFAULTS["curl"], "arp": {"op": 1, "pdst": "10.244.0.150"}}), CURL)
    with datapath() as dp:
        dp.set_settings(replace(dp.settings, punt_rate_pps=10, punt_burst=5))
        outcomes = dp.run(10**9, [arp] * 8)
        assert [o.verdict for o in outcomes] == [Verdict.PUNT] * 5 + [Verdict.DROP] * 3
        assert {o.drop for o in outcomes[5:]} == {Drop.DROP_RATE_LIMITED}
        assert dp.run(2 * 10**9, [arp])[0].verdict == Verdict.PUNT


def test_drop_ep_not_ready_when_the_endpoints_row_is_gone() -> None:
    """203 for a local address whose endpoint was deleted; 246 for a frame of an unknown port."""
    with datapath() as dp:
        assert dp.run(10**9, [Packet(bytes(64), 4711)])[0].drop == Drop.ENDPOINT_GONE
        dp.endpoint_delete(2827)
        frame = build({**DEFAULTS["curl"], "dst": "10.244.0.109", "udp": {"sport": 1, "dport": 2}})
        assert dp.run(10**9, [Packet(frame, CURL)])[0].drop == Drop.DROP_EP_NOT_READY


def test_drop_error_writing_to_packet_without_headroom() -> None:
    """141 when the caller left no room for the tunnel header; the frame is not touched."""
    frame = udp(7).frame
    with datapath() as dp:
        buffer = ffi.new("uint8_t[]", frame)
        pkt, out = ffi.new("struct fwd_pkt *"), ffi.new("struct fwd_out *")
        pkt.buf, pkt.size, pkt.len, pkt.port = buffer, len(frame), len(frame), CURL
        assert lib.fwd_dp_run(dp.handle, 10**9, pkt, 1, out, 1) == 1
        assert (out.verdict, out.drop) == (Verdict.DROP, Drop.ERROR_WRITING_TO_PACKET)
        assert bytes(ffi.buffer(buffer, len(frame))) == frame


@pytest.mark.parametrize(
    "reason",
    [
        Drop.NO_HOST_DEVICE,
        Drop.UNDERLAY_SEND_FAILED,
        Drop.ENDPOINT_WRITE_FAILED,
        Drop.INVALID_PACKET_DROPPED,
    ],
)
def test_drop_after_the_verdict_moves_the_packet_to_the_dropped(reason: Drop) -> None:
    """What the I/O room cannot send is taken off the sent; what it never let in is received."""
    frame = udp(7).frame
    with datapath() as dp:
        buffer = ffi.new("uint8_t[]", bytes(128) + frame)
        pkt, out = ffi.new("struct fwd_pkt *"), ffi.new("struct fwd_out *")
        pkt.buf, pkt.size, pkt.off = buffer, 128 + len(frame), 128
        pkt.len, pkt.port = len(frame), CURL
        if reason == Drop.INVALID_PACKET_DROPPED:
            out = ffi.NULL
        else:
            assert lib.fwd_dp_run(dp.handle, 10**9, pkt, 1, out, 1) == 1
        lib.fwd_dp_count_drop(dp.handle, 10**9, reason, lib.FWD_DIR_EGRESS, pkt, out)
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == 1
        counted = {row.reason: row for row in dp.metrics()}[reason]
        assert (counted.packets, counted.bytes) == (1, len(frame))


def test_policy_audit_passes_what_policy_denies_and_says_so() -> None:
    """The verdict event keeps the reason and is marked; a flow tells once; other drops stay."""
    world = compile_world(load_node_file(HERE / "worlds" / "enforced.yaml"))
    denied = {**DEFAULTS["curl"], "tcp": {"sport": 5, "dport": 81, "flags": "S"}}
    later = {**denied, "tcp": {"sport": 5, "dport": 81}}
    tunnel = {**DEFAULTS["curl"], "udp": {"sport": 5, "dport": 8472}}
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))
        dp.set_settings(replace(dp.settings, policy_audit=True, monitor_mask=4))
        outcomes = dp.run(10**9, [Packet(build(one), CURL) for one in (denied, later, tunnel)])
        assert [o.verdict for o in outcomes[:2]] == [Verdict.TX_UNDERLAY] * 2
        assert outcomes[2].drop == Drop.ENCAPSULATION_TRAFFIC_IS_PROHIBITED
        events, _ = dp.events()
        told = [(event.subtype, -event.verdict) for event in events]
        assert told == [(1, Drop.POLICY_DENIED), (0, Drop.ENCAPSULATION_TRAFFIC_IS_PROHIBITED)]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (0, ["from-host", "to-overlay", "to-network", "from-endpoint", "to-overlay", "to-network"]),
        (1, ["to-overlay", "to-network", "to-overlay", "to-network"]),
        (3, ["to-overlay", "to-network", "to-overlay", "to-network"]),
    ],
)
def test_aggregation_hides_origins_then_what_is_no_news(level: int, told: list[str]) -> None:
    """From 1 on no from-* event; from 3 on none without news; what has no conntrack is news."""
    host = Packet(build({**DEFAULTS["cilium_host"], "udp": {"sport": 1, "dport": 2}}), PORT_HOST)
    with datapath() as dp:
        dp.set_settings(replace(dp.settings, monitor_mask=2, monitor_aggregation=level))
        dp.run(10**9, [host, udp(7)])
        events, _ = dp.events()
        assert [OBS_TEXT[event.subtype] for event in events] == told
        dp.run(2 * 10**9, [udp(7)])
        events, _ = dp.events()
        again = [OBS_TEXT[event.subtype] for event in events]
        assert again == ([] if level == 3 else told[3:] if level == 0 else told[2:])
        forwarded = [row.packets for row in dp.metrics() if (row.reason, row.dir) == (0, 2)]
        assert forwarded == [6]


def test_run_stops_when_out_is_full() -> None:
    """The caller learns how many packets were taken, the rest is untouched."""
    with datapath() as dp:
        pkts, outs = ffi.new("struct fwd_pkt[]", 3), ffi.new("struct fwd_out[]", 2)
        assert lib.fwd_dp_run(dp.handle, 10**9, pkts, 3, outs, 2) == 2
        assert sum(row.packets for row in dp.metrics() if row.reason == 101) == 2


def test_run_leaves_no_trace_of_other_worlds() -> None:
    """Two datapaths in one process share nothing (D6)."""
    with datapath() as one, datapath() as two:
        one.run(10**9, [udp(1)])
        assert two.stats("ct_any").count == 0
        assert one.stats("ct_any").count > 0
        one.ipcache_delete(next(iter(two.ipcache())).prefix)
        assert two.ipcache_lookup(IPv4Address("10.244.2.171")) is not None
