"""`fwd trace`: exit codes, the tree, JSON, and the node file instead of the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fwd.observe.pcap import PcapWriter
from tests.api.frames import syn, udp
from tests.cli.invoke import fwd

WORLD = str(Path(__file__).parents[1] / "control" / "trace_world.yaml")
TARGET = "10.244.2.171:80/tcp"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["default/curl -> 10.244.2.171:80/tcp"], 0),
        (["default/curl", "->", TARGET], 0),
        (["default/curl", "→", TARGET], 0),
        (["default/curl", "to", TARGET, "--ct", "reply"], 0),
        (["default/curl to 10.244.0.150/icmp"], 10),
        (["default/local to 10.244.0.150/icmp"], 0),
        (["default/curl to 10.244.2.171:443"], 10),
        (["--frame", syn().hex(), "--port", "default/curl"], 0),
        (["--frame", "00", "--port", "default/curl"], 10),
    ],
)
def test_exit_codes(arguments, code):
    """0 forwarded, whoever gets it; 10 dropped."""
    ran = fwd("trace", *arguments, "--config", WORLD)
    assert ran.code == code, ran.err
    verdict = ran.out.splitlines()[-1]
    assert verdict.startswith("verdict: dropped" if code else "verdict: forwarded")


def test_rejected_is_11():
    """A drop whose sender is told has an exit code of its own."""
    telling = str(Path(__file__).parents[1] / "csrc/path/worlds/icmp.yaml")
    ran = fwd("trace", "curl to 10.244.2.171:443", "--config", telling)
    verdict = ran.out.splitlines()[-1]
    assert (ran.code, verdict) == (
        11,
        "verdict: rejected: 181 Policy denied by denylist — denied by policy[0] icmp.yaml:"
        + verdict.rpartition(":")[2],
    )


def test_the_tree():
    """A title, one branch a hook, the verdict last."""
    lines = fwd("trace", f"default/curl -> {TARGET}", "--config", WORLD).out.splitlines()
    assert lines[0] == "10.244.0.108:43512 -> 10.244.2.171:80 tcp SYN, in at default/curl, ct new"
    branches = [line[3:] for line in lines if line[0] in "├└"]
    assert branches == ["from-container", "to-overlay", "to-netdev"]
    assert any("ipcache 10.244.2.171/32 -> identity 25002" in line for line in lines)
    assert lines[-1] == (
        "verdict: forwarded to node2 192.168.56.106, VNI 25001 — "
        "allowed by policy[0] trace_world.yaml:31"
    )


def test_what_made_the_state_is_shown():
    """The opening packet has a tree of its own, before the one that was asked for."""
    ran = fwd("trace", f"default/curl to {TARGET}", "--ct", "established", "--config", WORLD)
    titles = [line for line in ran.out.splitlines() if ", in at " in line]
    assert titles[0].startswith("first, so that the connection stands: 10.244.0.108:43512")
    assert titles[1].endswith("ct established")


def test_json():
    """The whole answer, with the same exit code."""
    ran = fwd("trace", "default/curl to 8.8.8.8:80", "--config", WORLD, "-o", "json")
    answer = json.loads(ran.out)
    assert (ran.code, answer["result"]) == (10, "dropped")
    assert answer["packet"]["drop"] == {"code": 133, "name": "POLICY_DENIED"}
    assert answer["packet"]["stages"][0]["function"] == "stage_parse"


def test_a_captured_packet(tmp_path):
    """Records count from 1."""
    path = tmp_path / "some.pcap"
    with path.open("wb") as file:
        writer = PcapWriter(file)
        for count, frame in enumerate((syn(), udp(), b"\0")):
            writer.write(count, frame)
    where = ["--port", "default/curl", "--config", WORLD]
    assert fwd("trace", "--pcap", str(path), *where).code == 0
    assert fwd("trace", "--pcap", str(path), "--packet", "3", *where).code == 10
    ran = fwd("trace", "--pcap", str(path), "--packet", "4", *where)
    assert (ran.code, "has no record 4" in ran.err) == (2, True)


def test_a_frame_that_leaves_and_a_super_packet(lab):
    """--hook and --gso-size reach the tables of a file and of the daemon alike."""
    masquerading = str(Path(WORLD).parents[1] / "csrc/path/worlds/masquerade.yaml")
    leaves = syn(dst="203.0.113.9", sport=40000).hex()
    out = ["--frame", leaves, "--port", "netdev", "--hook", "to-netdev", "-o", "json"]
    answer = json.loads(fwd("trace", *out, "--config", masquerading).out)["packet"]
    assert bytes.fromhex(answer["out"][0]["frame"])[26:30] == bytes((192, 168, 56, 105))
    ran = fwd("trace", *out, socket=lab.socket)
    assert (ran.code, json.loads(ran.out)["packet"]["verdict"]) == (0, "TX_UNDERLAY")
    big = ["--frame", (syn() + bytes(3000)).hex(), "--port", "default/curl", "--gso-size", "1400"]
    ran = fwd("trace", *big, "--csum-start", "34", "--csum-offset", "16", socket=lab.socket)
    assert ran.code == 0, ran.err
    ran = fwd("trace", *big, "--csum-start", "34", socket=lab.socket)
    assert (ran.code, "only work together" in ran.err) == (1, True)


def test_the_daemon_is_asked(lab):
    """Without --config the live tables decide; its refusal is the command's."""
    ran = fwd("trace", f"default/curl to {TARGET}", socket=lab.socket)
    assert (ran.code, "VNI 25001" in ran.out) == (0, True)
    ran = fwd("trace", "default/curl to 8.8.8.8:80", "--ct", "new", socket=lab.socket)
    assert ran.code == 10
    ran = fwd("trace", "default/crul to 8.8.8.8:80", socket=lab.socket)
    assert (ran.code, "did you mean 'default/curl'" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "give one of: a microflow, --frame, --pcap"),
        (["a to b", "--frame", "00"], 2, "give one of"),
        (["a to b", "--sprt", "5"], 2, "no such option: --sprt"),
        (["default/curl", "-"], 1, "the shell takes an unquoted >"),
        (["--frame", "0g", "--port", "default/curl"], 1, "frame: not hex"),
        (["--frame", "00"], 1, "go together"),
        (["--pcap", "/nonexistent", "--port", "default/curl"], 1, "opening /nonexistent: No such"),
        (["--pcap", WORLD, "--port", "default/curl"], 1, "not a capture file"),
    ],
)
def test_errors(arguments, code, says):
    """Usage is 2, what cannot be traced is 1, and both say what to write."""
    ran = fwd("trace", *arguments, "--config", WORLD)
    assert (ran.code, ran.out) == (code, "")
    assert says in ran.err


def test_no_daemon_and_no_node_file(tmp_path):
    """3 where nobody answers, 1 where the file is wrong."""
    assert fwd("trace", "a to b", socket=str(tmp_path / "none.sock")).code == 3
    ran = fwd("trace", "a to b", "--config", str(tmp_path / "none.yaml"))
    assert (ran.code, "none.yaml" in ran.err) == (1, True)
