"""Traces on fresh tables: states that are made true, places packets come from, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from fwd.config.load import load_node_file
from fwd.control.apply import apply, diff
from fwd.control.compile import compile_world
from fwd.control.trace import CT_STATES, TraceError, TraceRequest, trace
from fwd.datapath.binding import Datapath
from fwd.datapath.packet import Packet
from fwd.observe.pcap import wrap_overlay
from tests.api.frames import syn

NOW_NS = 10**12
REMOTE = "default/curl -> 10.244.2.171:80/tcp"


class Node:
    """Tables of trace_world.yaml and traces on them."""

    def __init__(self) -> None:
        self.node = load_node_file(Path(__file__).parent / "trace_world.yaml")
        self.world = compile_world(self.node)
        self.dp = Datapath.create(self.world.params)
        apply(self.dp, diff(None, self.world))

    def __call__(self, flow=None, **asked):
        """Trace; the tables keep what it did."""
        request = TraceRequest(flow, **asked)
        return trace(self.dp, self.node, self.world, request, NOW_NS)


@pytest.fixture
def node():
    """A node nothing has run on."""
    node = Node()
    yield node
    node.dp.close()


@pytest.mark.parametrize("state", CT_STATES)
@pytest.mark.parametrize(
    "flow",
    [
        REMOTE,
        "default/curl -> 10.244.2.171:53/udp",
        "default/curl -> 10.244.2.171/icmp",
        "default/curl -> 10.244.2.171:80/sctp",
        "default/curl -> fd00:2::171:80/tcp",
        "default/curl -> default/local:8080/tcp",
        "peer node2/10.244.2.171 -> default/local:80/tcp",
        "peer node2/10.244.2.171 -> default/local/icmp",
        "peer node2/fd00:2::171 -> default/local:80/udp",
        "host -> default/local:80/tcp",
    ],
)
def test_conntrack_says_what_was_asked_for(node, flow, state):
    """The state is true on the tables, and all but new needed a packet before."""
    answer = node(flow.replace("fd00:2::171:", "[fd00:2::171]:"), ct=state)
    assert answer["packet"]["ct"] == state
    assert len(answer["setup"]) == (state != "new")
    assert answer["result"] == "forwarded"
    assert {row.proto for tcp in (True, False) for row in node.dp.ct(tcp=tcp)}


def test_one_line_names_node_vni_and_rule(node):
    """The last line of a packet into the overlay."""
    assert node(REMOTE)["verdict"] == (
        "forwarded to node2 192.168.56.106, VNI 25001 — allowed by policy[0] trace_world.yaml:31"
    )


def test_a_local_destination_is_traced_into_the_pod(node):
    """Both pods' programs stand in one trace, and the receiver's rule has the last word."""
    answer = node("default/curl -> default/local:8080/tcp")
    hooks = [row["hook"] for row in answer["packet"]["stages"]]
    assert hooks[0] == "from-container"
    assert hooks[-1] == "to-container"
    assert answer["verdict"].startswith("forwarded to default/local, identity 25003 — allowed by")


def test_a_service_is_traced_to_its_backend(node):
    """The translation is a stage of its own, and an established packet keeps its backend."""
    flow = "default/curl -> 10.96.0.10:80/tcp"
    new, later = (node(flow, ct=state)["packet"] for state in ("new", "established"))
    assert "service 10.96.0.10:80 TCP" in new["stages"][2]["walk"]
    assert later["ct"] == "established"
    assert node("default/curl -> 10.96.0.11:80/tcp")["packet"]["drop"]["code"] == 158


@pytest.mark.parametrize(
    ("flow", "says"),
    [
        ("default/curl -> 10.244.2.171:443/tcp", "dropped: 181"),
        ("default/curl -> 8.8.8.8:80/tcp", "dropped: 133"),
        ("default/curl -> default/local:8090/tcp", "denied by policy[6] trace_world.yaml:37"),
        ("peer legacy/10.244.2.171 -> default/local:80", "dropped: 241"),
    ],
)
def test_drops_say_why(node, flow, says):
    """The reason, and the rule where a policy spoke."""
    answer = node(flow)
    assert answer["result"] == "dropped"
    assert says in answer["verdict"]


def test_source_ports_avoid_what_is_tracked(node):
    """A new packet is new even when the first choice of ports is taken."""
    first, second = (node(REMOTE)["packet"]["summary"] for _ in range(2))
    assert first != second
    asked = node(REMOTE, sport=40000)["packet"]
    again = node(REMOTE, sport=40000)["packet"]
    assert (asked["ct"], again["ct"]) == ("new", "established")
    with pytest.raises(TraceError, match="calls this packet established, not new"):
        node(REMOTE, sport=40000, ct="new")


def test_a_frame_and_an_underlay_frame(node):
    """Frames come in as they are; on the overlay port with their outer headers."""
    answer = node(frame=syn(), port="default/curl")
    assert answer["packet"]["frame"] == syn().hex()
    payload = bytes.fromhex("0800000000000100") + syn()
    remote = node.world.peers[0].ip
    outer = wrap_overlay(payload, remote, node.world.ip, port=8472, flow_hash=0)
    answer = node(frame=outer, port="overlay")
    assert answer["packet"]["drop"]["name"] == "INVALID_IDENTITY"
    with pytest.raises(TraceError, match="give the underlay's frame, with its outer headers"):
        node(frame=syn(), port="overlay")


def test_a_frame_on_its_way_out(node):
    """The hook is to-netdev, which has rules of its own: from-netdev would hand it to the host."""
    answer = node(frame=syn(), port="netdev", hook="to-netdev")
    assert (answer["packet"]["verdict"], answer["packet"]["port"]) == ("TX_UNDERLAY", "netdev")
    assert {one["hook"] for one in answer["packet"]["stages"]} == {"to-netdev"}
    assert node(frame=syn(), port="netdev")["packet"]["verdict"] == "TO_STACK"


def test_a_super_packet():
    """What it stands for fits the tunnel, though it does not; as one packet it is too big."""
    path = Path(__file__).parents[1] / "csrc/path/worlds/icmp.yaml"
    told = load_node_file(path)
    world = compile_world(told)
    frame = Ether(syn()) / bytes(8000)
    frame[IP].flags = "DF"
    del frame[IP].len, frame[IP].chksum, frame[TCP].chksum
    frame = bytes(frame)
    with Datapath.create(world.params) as dp:
        apply(dp, diff(None, world))

        def ask(**more: int) -> dict:
            return trace(dp, told, world, TraceRequest(frame=frame, port="curl", **more), NOW_NS)

        assert ask()["packet"]["drop"]["name"] == "FRAGMENTATION_NEEDED"
        assert ask(gso_size=1361)["packet"]["drop"]["name"] == "FRAGMENTATION_NEEDED"
        assert ask(gso_size=1360)["result"] == "forwarded"
        partial = ask(gso_size=1360, csum_start=34, csum_offset=16)
    assert partial["result"] == "forwarded"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "give either"),
        ({"flow": REMOTE, "hook": "to-netdev"}, "are for frames"),
        ({"flow": REMOTE, "gso_size": 1400}, "are for frames"),
        ({"frame": b"", "port": "netdev", "hook": "from-netdev"}, "'from-netdev' is no hook"),
        ({"frame": b"", "port": "default/curl", "hook": "to-netdev"}, "'to-netdev' is no hook"),
        ({"frame": b"", "port": "overlay", "gso_size": 1400}, "one whole packet"),
        ({"frame": b"", "port": "netdev", "csum_start": 34}, "only work together"),
        ({"frame": b"", "port": "netdev", "gso_size": 70000}, "70000 is not a length"),
        ({"flow": REMOTE, "frame": b"", "port": "x"}, "give either"),
        ({"frame": b""}, "go together"),
        ({"flow": REMOTE, "port": "default/curl"}, "go together"),
        ({"frame": b"", "port": "x", "ct": "new"}, "are for microflows"),
        ({"frame": bytes(70000), "port": "x"}, "the frame has 70000 bytes"),
        ({"frame": b"", "port": "default/crul"}, "no port or endpoint is named 'default/crul'"),
        ({"flow": REMOTE, "ct": "old"}, "'old' is no state"),
        ({"flow": REMOTE, "sport": 0}, "0 is no source port"),
        ({"flow": "nonsense"}, "is not a microflow"),
        ({"flow": "default/curl -> 8.8.8.8:53/udp", "ct": "established"},
         ("its first packet, 10.244.0.108:43512 -> 8.8.8.8:53 udp from default/curl, is dropped "
          "(133 POLICY_DENIED)")),
        ({"flow": "host -> 10.244.2.171:80/tcp", "ct": "new"}, "conntrack is not asked"),
        ({"flow": "default/curl -> 10.96.0.10:80/tcp", "ct": "reply"}, "10.96.0.10 is a service"),
    ],
)  # fmt: skip
def test_errors(node, asked, says):
    """What cannot be traced, and what to do about it."""
    with pytest.raises(TraceError) as caught:
        node(**asked)
    assert says in str(caught.value)


def test_made_up_packets_are_the_daemons(node):
    """The packet a trace reports is the one that was run: the same frame gives the same end."""
    traced = node(REMOTE, sport=41000)["packet"]
    other = Node()
    packet = Packet(bytes.fromhex(traced["frame"]), 2825)
    assert other.dp.run(NOW_NS, [packet])[0].verdict.name == traced["verdict"]
    other.dp.close()
