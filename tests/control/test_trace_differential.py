"""What a trace says comes true: a view and the tables it was taken of decide alike."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fwd.config.load import load_node_file
from fwd.control.answer import packet_answer
from fwd.control.apply import apply, diff
from fwd.control.arena import Arena
from fwd.control.compile import compile_world
from fwd.control.trace import TraceRequest, trace
from fwd.control.trace_text import stage_records
from fwd.datapath.packet import PORT_OVERLAY, Packet
from fwd.model.enums import Drop
from fwd.observe.pcap import wrap_overlay
from tests.control.packets import UNKNOWN_PORT, random_packet

PACKETS = 5_000  # of each world
TELLING = dict.fromkeys(
    ("reject_no_backend", "reject_deny", "ttl_exceeded_reply", "masquerade"), True
)
COMPARED = ("verdict", "drop", "ct", "src_identity", "dst_identity", "rule", "trace", "out")


@pytest.fixture(scope="module")
def node():
    """The node file of the packets."""
    return load_node_file(Path(__file__).parent / "trace_world.yaml")


def request_of(packet: Packet, names: dict[int, str]) -> TraceRequest | None:
    """The request for a packet; None = no frame at a named port is this packet."""
    plain = packet.csum_start is None and not packet.gso_size and not packet.to_netdev
    if not plain or packet.port == UNKNOWN_PORT:
        return None
    frame = packet.frame
    if packet.port == PORT_OVERLAY:
        frame = wrap_overlay(frame, packet.outer_src, packet.outer_dst, port=8472, flow_hash=1)
    return TraceRequest(frame=frame, port=names[packet.port])


@pytest.mark.parametrize("telling", [False, True], ids=["silent", "telling"])
def test_trace_and_live_agree(node, telling):
    """10,000 packets: the trace on a view, then the real run; and the trace changed nothing."""
    rng = random.Random(20 + telling)
    world = compile_world(node)
    if telling:
        world = replace(world, settings=replace(world.settings, **TELLING))
    names = {number: name for name, number in world.ports.items()}
    arena = Arena(world)
    apply(arena.dp, diff(None, world))
    verdicts, drops = Counter(), Counter()
    now_ns, traced = 10**12, 0
    for count in range(PACKETS):
        packet = random_packet(rng)
        now_ns += rng.choice([0, 10**3, 10**6, 10**9])
        request = request_of(packet, names)
        before = arena.dp.metrics() if count % 50 == 0 else None
        with arena.view() as view:
            if request is None:
                (said,) = view.run(now_ns, [packet])
            else:
                said = trace(view, node, world, request, now_ns)["packet"]
        assert before is None or arena.dp.metrics() == before
        (outcome,) = arena.dp.run(now_ns, [packet])
        if request is None:
            assert said == outcome, packet
        else:
            traced += 1
            done = packet_answer(world, packet, outcome)
            assert {key: said[key] for key in COMPARED} == done, packet
            assert said["stages"] == stage_records(outcome.steps, packet, world.rules)
        verdicts[outcome.verdict.name] += 1
        drops[outcome.drop] += 1
    arena.close()
    assert traced > PACKETS // 2
    assert set(verdicts) == {"TX_ENDPOINT", "TX_UNDERLAY", "TO_STACK", "PUNT", "DROP"}
    seen = {int(reason) for reason in (Drop.POLICY_DENIED, Drop.POLICY_DENY, Drop.INVALID_SOURCE_IP,
            Drop.SERVICE_BACKEND_NOT_FOUND, Drop.UNKNOWN_PEER, Drop.VLAN_FILTERED)}  # fmt: skip
    assert seen <= set(drops), drops
