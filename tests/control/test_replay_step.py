"""Lines of a replay: what is a step, and what each mistake is told."""

from __future__ import annotations

import json
from ipaddress import ip_address as ip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.control.replay_step import StepError, build_packet, parse_step
from fwd.datapath.packet import PORT_NETDEV, PORT_OVERLAY, Packet

PORTS = {"pod/a": 10, "cilium_host": 0x10000, "netdev": PORT_NETDEV, "overlay": PORT_OVERLAY}
FRAME = {"at": 1, "port": "pod/a", "frame": "00ff"}
OVERLAY = {"at": 1, "port": "overlay", "outer_src": "192.0.2.1", "outer_dst": "192.0.2.2",
           "payload": "0800"}  # fmt: skip


def packet(fields):
    """The packet of a step."""
    return build_packet(parse_step(json.dumps(fields)), PORTS)


def test_packets_carry_what_the_line_says():
    """Frames, hooks, offsets and outer addresses arrive as written."""
    assert packet(FRAME) == Packet(b"\0\xff", 10)
    assert packet(FRAME | {"port": "netdev", "hook": "to-netdev"}).to_netdev
    offsets = FRAME | {"gso_size": 1400, "csum_start": 34, "csum_offset": 16}
    assert packet(offsets) == Packet(b"\0\xff", 10, gso_size=1400, csum_start=34, csum_offset=16)
    assert packet(OVERLAY) == Packet(
        b"\x08\0", PORT_OVERLAY, outer_src=ip("192.0.2.1"), outer_dst=ip("192.0.2.2")
    )


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_times_keep_every_nanosecond(at_ns):
    """Seconds with nine digits are read exactly, however large."""
    text = f"{at_ns // 10**9}.{at_ns % 10**9:09}"
    assert parse_step(f'{{"at": {text}, "sweep": true}}').at_ns == at_ns


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"at": NaN, "sweep": true}', "not JSON: NaN is not a number"),
        ("[1]", "not an object"),
        ("{}", "a step has one of the keys port, reload, sweep, dump, this one has 0"),
        ('{"sweep": true, "dump": "ct"}', "a step has one of the keys"),
        ('{"sweep": true}', "at: missing"),
        ('{"at": -1, "sweep": true}', "at: -1 is out of range"),
        ('{"at": 1e300, "sweep": true}', "at: 1E+300 is out of range"),
        ('{"at": "1", "sweep": true}', "at: '1' is not a time"),
        ('{"at": true, "sweep": true}', "at: True is not a time"),
        ('{"at": 1, "sweep": false}', "sweep: write true"),
        ('{"at": 1, "reload": 3}', "reload: write the node file's path"),
        ('{"dump": "cts"}', "dump: 'cts' is no table"),
        ('{"dump": ["ct"]}', "dump: ['ct'] is no table"),
        ('{"dump": "ct", "node": 3}', "node: 3 is not a node"),
        ('{"dump": "ct", "node": true}', "node: True is not a node"),
        ('{"dump": "ct", "node": [1]}', "node: [1] is not a node"),
        ('{"at": 1, "port": "pod/a", "frmae": ""}', "frmae: unknown key, did you mean 'frame'?"),
        ('{"at": 1, "port": "pod/a", "payload": ""}', "payload: unknown key"),
        ('{"at": 1, "port": "overlay", "frame": ""}', "frame: unknown key"),
        ('{"at": 1, "port": ["overlay"], "zzz": ""}', "zzz: unknown key, known: at, "),
    ],
)
def test_lines_that_are_no_steps_say_why(line, error):
    """Each mistake names its key and what to write."""
    with pytest.raises(StepError) as caught:
        parse_step(line)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (FRAME | {"port": "pod/b"}, "port: no port or endpoint is named 'pod/b', did you mean"),
        (FRAME | {"port": 10}, "port: no port or endpoint is named 10"),
        (FRAME | {"frame": "0"}, "frame: not hex"),
        (FRAME | {"frame": 0}, "frame: missing or not text"),
        ({"at": 1, "port": "pod/a"}, "frame: missing or not text"),
        (FRAME | {"frame": "00" * 65554}, "frame: 65554 bytes, at most 65553 fit"),
        (FRAME | {"hook": "to-netdev"}, "hook: 'to-netdev' is not one"),
        (FRAME | {"port": "netdev", "hook": "from-netdev"}, "hook: 'from-netdev' is not one"),
        (FRAME | {"gso_size": 65536}, "gso_size: 65536 is not a length"),
        (FRAME | {"gso_size": True}, "gso_size: True is not a length"),
        (FRAME | {"csum_start": 34}, "csum_start: csum_start and csum_offset only work together"),
        (OVERLAY | {"outer_src": "x"}, "outer_src: 'x' is not an IP address"),
        (OVERLAY | {"outer_dst": None}, "outer_dst: None is not an IP address"),
    ],
)  # fmt: skip
def test_packets_that_cannot_be_built_say_why(fields, error):
    """Ports, bytes and offsets are checked before the datapath sees them."""
    with pytest.raises(StepError) as caught:
        packet(fields)
    assert str(caught.value).startswith(error)


@given(st.text())
def test_any_text_is_a_step_or_an_error(line):
    """No line makes anything else happen."""
    try:
        step = parse_step(line)
    except StepError:
        return
    assert step.kind in ("port", "reload", "sweep", "dump")
