"""Rows of masquerading, csrc/path/nat.c, and frames that nobody would send."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import Packet
from tests.csrc.path.rows import HERE, balance, load, packet_of, run

ROWS = load("nat") | load("nat_six")
WORLD = compile_world(load_node_file(HERE / "worlds" / "masquerade.yaml"))
PACKETS = [packet_of(step, WORLD.ports) for row in ROWS.values() for step in row["steps"]]


@pytest.mark.parametrize("name", ROWS)
def test_nat_row(name: str) -> None:
    """One row, in a world of its own."""
    run(ROWS[name])


def spoiled(packet: Packet, changes: dict[int, int], cut: int) -> Packet:
    """The packet with other bytes behind its Ethernet header, and fewer of them."""
    frame = bytearray(packet.frame)
    for offset, value in changes.items():
        frame[14 + offset % (len(frame) - 14)] = value
    kept = bytes(frame[: max(14, len(frame) - cut)])
    return Packet(kept, packet.port, to_netdev=packet.to_netdev)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PACKETS),
            st.dictionaries(st.integers(0, 80), st.integers(0, 255), max_size=4),
            st.integers(0, 12),
        ),
        max_size=20,
    )
)
def test_nat_survives_spoiled_packets(todo: list[tuple[Packet, dict[int, int], int]]) -> None:
    """Whatever comes: no byte outside the frame is touched, and the sum of the counters holds."""
    with Datapath.create(WORLD.params) as dp:
        apply(dp, diff(None, WORLD))
        packets = [spoiled(*one) for one in todo]
        outcomes = dp.run(10**9, packets)
        sides = balance(dp.metrics())
        assert sides["in"] == sides["out"] == len(todo)
        for packet, outcome in zip(packets, outcomes, strict=True):
            assert outcome.drop or len(outcome.frame) >= len(packet.frame)
