"""POST /v1/trace: the live tables are asked, nothing is changed, errors are texts."""

from __future__ import annotations

import pytest

from fwd.api.client import ApiError, Client
from fwd.datapath.packet import Packet
from tests.api.frames import syn

FLOW = "default/curl -> 10.244.2.171:80/tcp"


@pytest.fixture
def client(lab):
    """A client of the daemon."""
    with Client(lab.socket) as client:
        yield client


def test_a_trace_leaves_the_daemon_as_it_was(lab, client):
    """Counters, connections and events are those of before."""
    answer = client.post("/v1/trace", {"flow": FLOW, "ct": "established"})
    assert (answer["result"], answer["packet"]["ct"]) == ("forwarded", "established")
    assert lab.call(lab.agent.dp.metrics) == []
    assert lab.call(lambda: list(lab.agent.dp.ct(tcp=True))) == []
    assert lab.call(lab.agent.dp.events) == ([], 0)


def test_a_trace_sees_live_connections(lab, client):
    """What the daemon has tracked is known to the trace, by its own clock."""
    lab.send(syn(sport=43000), now_ns=2**62)
    asked = {"flow": FLOW, "sport": 43000}
    assert client.post("/v1/trace", asked)["packet"]["ct"] == "established"
    asked["sport"] = 43001
    assert client.post("/v1/trace", asked)["packet"]["ct"] == "new"


def test_a_trace_sees_a_reload(lab, client):
    """The rule that decides is the one now in force."""
    path = lab.agent.path
    path.write_text(path.read_text().replace("action: allow", "action: deny"))
    assert client.post("/v1/trace", {"flow": FLOW})["result"] == "forwarded"
    client.post("/v1/reload")
    denied = client.post("/v1/trace", {"flow": FLOW})
    assert (denied["result"], denied["packet"]["drop"]["code"]) == ("dropped", 181)


def test_a_frame(lab, client):
    """The trace says of a frame what then becomes of it."""
    answer = client.post("/v1/trace", {"frame": syn().hex(), "port": "default/curl"})
    outcome = lab.call(lambda: lab.agent.dp.run(10**9, [Packet(syn(), 2825)])[0])
    assert answer["packet"]["verdict"] == outcome.verdict.name
    assert answer["packet"]["out"][0]["udp_payload"] == outcome.frame.hex()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, "the body is not JSON"),
        ([], "the body is not a JSON object"),
        ({"flaw": FLOW}, "flaw: unknown key, known: flow, ct, sport, frame, port, hook,"),
        ({"flow": FLOW, "gso_size": "1"}, "gso_size: '1' is not int"),
        ({"flow": 7}, "flow: 7 is not str"),
        ({"flow": FLOW, "sport": True}, "sport: True is not int"),
        ({"frame": "0g", "port": "default/curl"}, "frame: not hex, write two digits a byte"),
        ({"flow": "default/crul -> 8.8.8.8:1"}, "did you mean 'default/curl'"),
        ({}, "give either a microflow or a frame"),
    ],
)
def test_bad_requests_are_told(client, body, says):
    """Each is one sentence, and the daemon goes on."""
    with pytest.raises(ApiError) as caught:
        client.post("/v1/trace", body)
    assert says in str(caught.value)
    assert client.get("/v1/status")["state"] == "running"
