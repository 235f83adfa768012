"""A packet's answer: verdict, rule and what went out."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwd.config.load import load_node_file
from fwd.control.answer import packet_answer
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import Packet
from tests.api.frames import syn

CURL = 2825


@pytest.fixture
def answer():
    """Decide on a frame of curl and answer."""
    world = compile_world(load_node_file(Path(__file__).parent / "trace_world.yaml"))
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))

        def run(frame: bytes):
            packet = Packet(frame, CURL)
            return packet_answer(world, packet, dp.run(10**12, [packet])[0])

        yield run


def test_a_forwarded_packet_names_its_rule_and_its_bytes(answer):
    """The underlay row has the VXLAN payload and, in it, the inner frame."""
    said = answer(syn())
    assert (said["verdict"], said["drop"], said["ct"]) == ("TX_UNDERLAY", None, "new")
    assert (said["rule"]["index"], said["rule"]["action"]) == (0, "allow")
    (row,) = said["out"]
    assert (row["port"], row["remote"], row["vni"]) == ("overlay", "192.168.56.106", 25001)
    assert bytes.fromhex(row["frame"]) == syn() == bytes.fromhex(row["udp_payload"])[8:]


def test_a_default_deny_names_the_nearest_rule(answer):
    """What selects the pod stands in ``because``, and nothing goes out."""
    said = answer(syn(dst="8.8.8.8"))
    assert said["drop"] == {"code": 133, "name": "POLICY_DENIED"}
    assert (said["rule"]["kind"], said["out"]) == ("default-deny", [])
    assert said["rule"]["nearest"]["port"] == "80"
