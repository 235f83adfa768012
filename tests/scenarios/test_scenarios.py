"""Replays with golden answers: every folder NN-name is node files, steps, and what they answer."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from fwd.control.replay import replay_main
from fwd.model.enums import Obs
from tests.scenarios.service_story import SERVICE_STORY, VIP
from tests.scenarios.story import STORY

HERE = Path(__file__).parent
FOLDERS = sorted(path for path in HERE.iterdir() if path.name[:2].isdigit())
STORY_FOLDER = HERE / "01-curl-to-nginx"
SERVICE_FOLDER = HERE / "02-curl-to-a-service"
STORIES = {STORY_FOLDER: STORY, SERVICE_FOLDER: SERVICE_STORY}


def replay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The answer lines of a folder's steps; paths in answers are relative to the folder."""
    monkeypatch.chdir(folder)
    out = io.StringIO()
    peer = Path("node2.yaml")
    with Path("steps.jsonl").open() as steps:
        code = replay_main(
            Path("node1.yaml"), steps_in=steps, out=out, peer=peer if peer.exists() else None
        )
    assert code == 0
    return out.getvalue().splitlines()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_scenario_answers_as_recorded(folder, monkeypatch, refresh_golden):
    """Each step's answer is the recorded line."""
    if refresh_golden and folder in STORIES:
        lines = "".join(json.dumps(step) + "\n" for step in STORIES[folder])
        (folder / "steps.jsonl").write_text(lines)
    answers = replay(folder, monkeypatch)
    golden = folder / "expect.jsonl"
    if refresh_golden:
        golden.write_text("".join(f"{line}\n" for line in answers))
    expected = golden.read_text().splitlines()
    for answer, expectation in zip(answers, expected, strict=True):
        assert json.loads(answer) == json.loads(expectation)
    assert answers == expected


@pytest.mark.parametrize("folder", STORIES, ids=lambda folder: folder.name)
def test_story_file_is_the_story(folder):
    """The steps on disk are those of story.py and service_story.py."""
    lines = (folder / "steps.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == STORIES[folder]


def test_service_story_reads_as_it_should(monkeypatch):
    """Nginx sees itself asked, curl the service answer; a removed backend is forgotten at once."""
    answers = [json.loads(line) for line in replay(SERVICE_FOLDER, monkeypatch)]
    seen = [Ether(bytes.fromhex(answers[n]["peer"]["out"][0]["frame"]))[IP] for n in (1, 2, 3, 4)]
    assert [(ip.src, ip.dst) for ip in seen] == [
        ("10.244.0.108", "10.244.2.171"), (VIP, "10.244.0.108"),
        ("10.244.0.108", "10.244.2.171"), (VIP, "10.244.0.108"),
    ]  # fmt: skip
    hairpin = [Ether(bytes.fromhex(answers[n]["out"][0]["frame"]))[IP] for n in (6, 7)]
    assert [(ip.src, ip.dport) for ip in hairpin] == [("169.254.42.1", 5353), ("10.96.0.11", 40001)]
    before, after = ({row["rev_nat_id"] for row in answers[n]["rows"]} for n in (5, 9))
    web, _self = (row["rev_nat_id"] for row in answers[0]["rows"])
    assert web in before
    assert web not in after
    assert answers[10]["drop"] == {"code": 158, "name": "SERVICE_BACKEND_NOT_FOUND"}


@pytest.fixture
def story(monkeypatch):
    """The story's answers, by step."""
    return [json.loads(line) for line in replay(STORY_FOLDER, monkeypatch)]


def test_first_syn_walks_the_whole_way(story):
    """The SYN passes the points of the walk on both nodes in order (reference 8.3)."""
    syn = story[1]
    assert syn["trace"] == ["from-endpoint", "policy-verdict", "to-overlay", "to-network"]
    assert syn["peer"]["trace"] == [
        "from-network", "from-overlay", "policy-verdict", "to-endpoint"
    ]  # fmt: skip
    assert (syn["ct"], syn["peer"]["ct"]) == ("new", "new")
    assert (syn["out"][0]["remote"], syn["out"][0]["vni"]) == ("192.168.56.106", 25001)


def test_answers_of_the_server_are_replies(story):
    """Everything nginx sends is a reply on both nodes, and no policy is asked."""
    for answer, step in zip(story, STORY, strict=True):
        if step.get("port") == "kube-system/nginx":
            assert (answer["ct"], answer["peer"]["ct"]) == ("reply", "reply")
            assert "policy-verdict" not in answer["trace"] + answer["peer"]["trace"]


def test_every_observation_point_of_the_way_is_seen(story):
    """No point of the packet's way is left out; proxies and the stack's own have no part in it."""
    seen = {
        point
        for answer in story
        for side in (answer, answer.get("peer") or {})
        for point in side.get("trace", [])
    }
    absent = {Obs.TO_PROXY, Obs.FROM_PROXY, Obs.FROM_STACK, Obs.TO_HOST}
    assert seen == {point.name.lower().replace("_", "-") for point in Obs if point not in absent}


def test_delivered_frames_are_whole(story):
    """What a pod gets has its MAC, one hop less, and checksums that scapy computes too."""
    delivered = 0
    for answer, step in zip(story, STORY, strict=True):
        far = answer.get("peer") or {}
        if far.get("verdict") != "TX_ENDPOINT":
            continue
        delivered += 1
        sent, got = (Ether(bytes.fromhex(text)) for text in (step["frame"], far["out"][0]["frame"]))
        pod = {"kube-system/nginx": "96:86:44:a6:37:ec", "kube-system/curl": "96:86:44:a6:37:01"}
        assert got.dst == pod[far["out"][0]["port"]]
        assert got[IP].ttl == sent[IP].ttl - 1
        again = got.copy()
        del again[IP].chksum
        assert bytes(again) == bytes(got)
        assert bytes(got[IP].payload) == bytes(sent[IP].payload)
        assert answer["out"][0]["frame"] == step["frame"], "the sender changed the inner frame"
    assert delivered == 12


def test_denied_flow_is_explained(story):
    """The port that no rule allows is dropped by name, with the rules that were looked at."""
    denied = story[-4]["peer"]
    assert denied["drop"] == {"code": 133, "name": "POLICY_DENIED"}
    assert denied["rule"]["kind"] == "default-deny"
    assert denied["rule"]["nearest"]["port"] == "80"
    allowed = story[-5]["peer"]
    assert (allowed["verdict"], allowed["rule"]["line"]) == ("TX_ENDPOINT", 24)
