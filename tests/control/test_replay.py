"""Replay: the contract of answers, two nodes, captures, and errors that do not stop it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import dpkt
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import raw

from fwd.control.replay import replay_main

ROOT = Path(__file__).resolve().parents[2]
NODE1, NODE2 = ROOT / "configs/node1.yaml", ROOT / "configs/node2.yaml"
CURL, CURL_GW = "96:86:44:a6:37:01", "d2:ad:65:4d:d0:01"
PACKET_KEYS = ["n", "verdict", "drop", "ct", "src_identity", "dst_identity", "rule", "trace", "out"]


def frame(dst="10.244.2.171", sport=5000, dport=53):
    """A UDP frame of the curl pod, as hex."""
    packet = Ether(src=CURL, dst=CURL_GW) / IP(src="10.244.0.108", dst=dst) / UDP(
        sport=sport, dport=dport
    )  # fmt: skip
    return raw(packet).hex()


def send(at=0, **words):
    """A step that sends from the curl pod."""
    return {"at": at, "port": "kube-system/curl", "frame": frame()} | words


def run(*steps, config=NODE1, code=0, **options):
    """The answers to ``steps`` (objects, or lines as they are)."""
    lines = (step if isinstance(step, str) else json.dumps(step) for step in steps)
    out = io.StringIO()
    text = io.StringIO("".join(f"{line}\n" for line in lines))
    assert replay_main(config, steps_in=text, out=out, **options) == code
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_packet_answer_has_the_contract_s_keys():
    """A packet's answer has these keys in this order, `peer` only in runs of two nodes."""
    (alone,) = run(send())
    (pair,) = run(send(), peer=NODE2)
    assert list(alone) == PACKET_KEYS
    assert list(pair) == [*PACKET_KEYS, "peer"]
    assert list(pair["peer"]) == PACKET_KEYS[1:]
    assert alone["out"] == pair["out"]
    assert list(alone["out"][0]) == ["port", "remote", "vni", "udp_payload", "frame"]
    assert alone["out"][0]["udp_payload"] == "08000000" + "0061a900" + alone["out"][0]["frame"]


def test_control_steps_answer_ok():
    """Reload and sweep answer just ok, dumps rows too; here there is nothing to dump."""
    answers = run({"at": 0, "sweep": True}, {"at": 0, "reload": str(NODE1)}, {"dump": "lb"},
                  {"dump": "nat"}, {"dump": "ct"})  # fmt: skip
    assert answers[:2] == [{"n": 0, "ok": True}, {"n": 1, "ok": True}]
    assert [answer["rows"] for answer in answers[2:]] == [[], [], []]


def test_bad_lines_are_answered_and_the_run_goes_on(capsys):
    """An error has its line's number, later steps still work, and the exit code tells."""
    answers = run("nonsense", "", send(), {"at": 0, "port": "nobody", "frame": ""}, send(), code=1)
    assert [answer["n"] for answer in answers] == [0, 1, 2, 3]
    assert answers[0]["error"].startswith("line 1: not JSON")
    assert answers[2]["error"].startswith("line 4: port: no port or endpoint is named 'nobody'")
    assert [answers[1]["ct"], answers[3]["ct"]] == ["new", "established"]
    assert "line 4: port" in capsys.readouterr().err


def test_bytes_that_are_no_text_make_a_bad_line():
    """A line that is not UTF-8 is an error like others; the next one is answered."""
    data = b'{"at": 0, "port": "\xff", "frame": ""}\n' + json.dumps(send()).encode()
    out = io.StringIO()
    steps = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
    assert replay_main(NODE1, steps_in=steps, out=out) == 1
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert "line 1: port: no port or endpoint is named" in answers[0]["error"]
    assert answers[1]["verdict"] == "TX_UNDERLAY"


def test_time_never_goes_backwards():
    """An earlier time is refused and leaves the clock where it was; the same time is fine."""
    answers = run(send(at=5), send(at=4.999999999), send(at=5), code=1)
    assert "line 2: at: 5 is before 5, time never goes backwards" in answers[1]["error"]
    assert answers[2]["ct"] == "established"


def test_a_refused_packet_does_not_move_the_clock():
    """A step that cannot be built changes nothing, not even the time."""
    answers = run(send(at=5), send(at=99, frame="zz"), send(at=6), code=1)
    assert answers[2]["ct"] == "established"


def test_same_seed_same_answers():
    """Two runs say the same, line by line; the seed changes no verdict."""
    steps = [send(at=i, frame=frame(sport=5000 + i)) for i in range(20)] + [{"dump": "ct"}]
    one, two, other = (run(*steps, seed=seed) for seed in (1, 1, 2))
    assert one == two
    assert other == one


def test_ping_pong_between_two_nodes():
    """What either node sends arrives at the other, both ways."""
    back = Ether(src="96:86:44:a6:37:ec", dst="d2:ad:65:4d:d0:7b") / IP(
        src="10.244.2.171", dst="10.244.0.108"
    ) / UDP(sport=53, dport=5000)  # fmt: skip
    answers = run(
        send(),
        {"at": 1, "node": 2, "port": "kube-system/nginx", "frame": raw(back).hex()},
        peer=NODE2,
    )
    assert answers[0]["peer"]["out"][0]["port"] == "kube-system/nginx"
    assert answers[1]["peer"]["out"][0]["port"] == "kube-system/curl"
    assert (answers[1]["ct"], answers[1]["peer"]["ct"]) == ("reply", "reply")


def test_packets_that_stay_have_no_peer_answer():
    """A packet for the world goes to the stack and nothing arrives at the peer."""
    (answer,) = run(send(frame=frame(dst="203.0.113.9")), peer=NODE2)
    assert answer["verdict"] == "TO_STACK"
    assert answer["out"][0]["port"] == "cilium_host"
    assert answer["peer"] is None


def test_second_node_needs_the_peer_option():
    """Asking for node 2 in a run of one says how to have one."""
    (answer,) = run(send(node=2), code=1)
    assert answer["error"] == "line 1: node: there is no second node, give its file with --peer"


def test_reload_keeps_connections_and_names_errors(tmp_path):
    """A reload changes tables under a living connection; a bad file changes nothing."""
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        NODE1.read_text().replace("    netns: curl\n", "    enforce: {egress: true}\n")
    )
    bad = tmp_path / "bad.yaml"
    bad.write_text(NODE1.read_text() + "surprise: 1\n")
    answers = run(
        send(),
        {"at": 1, "reload": str(bad)},
        send(at=1),
        {"at": 2, "reload": str(strict)},
        {"dump": "ct"},
        send(at=2),
        code=1,
    )
    assert f"{bad}:31: surprise: unknown key" in answers[1]["error"]
    assert answers[2]["verdict"] == "TX_UNDERLAY"
    assert len(answers[4]["rows"]) == 2
    assert answers[5]["drop"]["name"] == "POLICY_DENIED"
    assert answers[5]["ct"] == "established"
    assert answers[5]["rule"]["kind"] == "default-deny"


def test_reload_forgets_connections_of_pods_that_left(tmp_path):
    """When a pod goes its connections go, as live."""
    without = tmp_path / "without.yaml"
    text = NODE1.read_text()
    start, end = text.index("endpoints:"), text.index("ipcache:")
    without.write_text(text[:start] + text[end:])
    answers = run(send(), {"at": 1, "reload": str(without)}, {"dump": "ct"}, send(at=1), code=1)
    assert answers[2]["rows"] == []
    assert "no port or endpoint is named 'kube-system/curl'" in answers[3]["error"]


def test_sweep_deletes_what_has_expired():
    """A UDP entry lives a minute, and a sweep after it takes entry and companion."""
    answers = run(send(), {"at": 60, "sweep": True}, {"dump": "ct"}, {"at": 61, "sweep": True},
                  {"dump": "ct"})  # fmt: skip
    assert [len(answers[2]["rows"]), len(answers[4]["rows"])] == [2, 0]


def test_broken_node_files_end_the_run(tmp_path, capsys):
    """Without a usable node file there are no answers, one line on stderr, and code 1."""
    assert run(config=tmp_path / "none.yaml", code=1) == []
    assert "none.yaml: cannot read the node file" in capsys.readouterr().err


def test_warnings_go_to_stderr(tmp_path, capsys):
    """What the file asks for and this version ignores is said once, not in the answers."""
    config = tmp_path / "w.yaml"
    row = "{name: s, frontend: 10.96.0.1, port: 80, affinity_timeout_s: 5}"
    config.write_text(f"{NODE1.read_text()}services: [{row}]\nfeatures: {{nodeport: true}}\n")
    assert len(run(send(), config=config)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        (
            f"warning: {config}:31: services[0].affinity_timeout_s: has no effect without "
            "the flag affinity"
        )
    ]


def write_pcap(path, frames, *, start=1_700_000_000.0):
    """A capture of ``frames`` (seconds after the start, bytes)."""
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file)
        for after, data in frames:
            writer.writepkt(data, start + after)


def read(path):
    """Frames of a capture by scapy."""
    with path.open("rb") as file:
        return [(ts, Ether(data)) for ts, data in dpkt.pcap.Reader(file)]


def test_capture_in_and_out(tmp_path):
    """Frames of a capture enter a port at their times; what leaves is a capture of VXLAN."""
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    write_pcap(source, [(0, bytes.fromhex(frame())), (2.5, bytes.fromhex(frame()))])
    options = {"pcap_in": source, "pcap_out": target, "port": "kube-system/curl"}
    answers = run(**options)
    assert [answer["ct"] for answer in answers] == ["new", "established"]
    (t0, first), (t1, _) = read(target)
    assert float(t1 - t0) == 2.5
    assert (first[IP].src, first[IP].dst) == ("192.168.56.105", "192.168.56.106")
    assert first[UDP].dport == 8472
    assert VXLAN(bytes(first[UDP].payload)).vni == 25001
    again = first.copy()
    del again[IP].chksum
    assert bytes(again) == bytes(first)


def test_capture_of_the_underlay_enters_the_overlay_port(tmp_path):
    """The capture one node wrote is what the other one reads; other frames are errors."""
    source, wire, target = (tmp_path / name for name in ("in.pcap", "wire.pcap", "out.pcap"))
    write_pcap(source, [(0, bytes.fromhex(frame()))])
    run(pcap_in=source, pcap_out=wire, port="kube-system/curl")
    frames = [(0, bytes(read(wire)[0][1])), (1, bytes.fromhex(frame()))]
    write_pcap(wire, frames)
    answers = run(config=NODE2, pcap_in=wire, pcap_out=target, port="overlay", code=1)
    assert answers[0]["verdict"] == "TX_ENDPOINT"
    assert answers[1]["error"] == "record 2: not a whole UDP datagram to port 8472"
    assert read(target)[0][1].dst == "96:86:44:a6:37:ec"


@pytest.mark.parametrize("port", [None, "nobody"])
def test_captures_need_a_port(tmp_path, capsys, port):
    """Without a port of the world the run ends and lists them."""
    source = tmp_path / "in.pcap"
    write_pcap(source, [])
    assert run(pcap_in=source, port=port, code=1) == []
    assert "write one of kube-system/curl, cilium_host, netdev" in capsys.readouterr().err


def test_answers_come_line_by_line():
    """A driver may wait for each answer before it writes the next step; no netlink is loaded."""
    program = (
        "import sys; from pathlib import Path; from fwd.control.replay import replay_main\n"
        "loaded = {'pyroute2', 'uvloop', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(replay_main(Path(sys.argv[1]), steps_in=sys.stdin, out=sys.stdout) "
        "or len(loaded))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(NODE1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        for at in range(3):
            child.stdin.write(json.dumps(send(at=at)) + "\n")
            child.stdin.flush()
            assert json.loads(child.stdout.readline())["n"] == at
        child.stdin.close()
        assert child.wait(10) == 0


def test_a_masqueraded_flow_out_and_back_and_forgotten(tmp_path):
    """Pod to the world, the answer, both halves in the dump; the sweep ends it with conntrack."""
    config = tmp_path / "w.yaml"
    config.write_text(NODE1.read_text() + "features: {masquerade: true}\n")
    answer = Ether(dst=CURL, src=CURL_GW) / IP(src="203.0.113.9", dst="192.168.56.105") / UDP(
        sport=53, dport=40000
    )  # fmt: skip
    out = frame(dst="203.0.113.9", sport=40000)
    pod, wire, back, dump, _, after = run(
        send(frame=out),
        {"at": 0, "port": "netdev", "hook": "to-netdev", "frame": out},
        {"at": 1, "port": "netdev", "frame": raw(answer).hex()},
        {"dump": "nat"},
        {"at": 1000, "sweep": True},
        {"dump": "nat"},
        config=config,
    )
    assert (pod["verdict"], wire["verdict"], back["verdict"]) == (
        "TO_STACK", "TX_UNDERLAY", "TO_STACK"
    )  # fmt: skip
    assert IP(bytes.fromhex(wire["out"][0]["frame"])[14:]).src == "192.168.56.105"
    assert IP(bytes.fromhex(back["out"][0]["frame"])[14:]).dst == "10.244.0.108"
    keys = ("direction", "src_ip", "src_port", "dst_ip", "dst_port", "to_ip", "to_port")
    assert [tuple(row[key] for key in keys) for row in dump["rows"]] == [
        ("IN", "203.0.113.9", 53, "192.168.56.105", 40000, "10.244.0.108", 40000),
        ("OUT", "10.244.0.108", 40000, "203.0.113.9", 53, "192.168.56.105", 40000),
    ]
    assert after["rows"] == []
