"""What `fwd NOUN list` and `get` print, literally."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fwd.datapath.packet import PORT_NETDEV, Packet
from tests.api.daemon import LabDaemon
from tests.api.frames import syn, udp
from tests.cli.invoke import fwd

CT = (
    "RxPackets=0 RxBytes=0 RxFlagsSeen=0x00 LastRxReport=0 TxPackets=1 TxBytes=54 "
    "TxFlagsSeen=0x02 LastTxReport=1 Flags=0x0000 [ ] RevNAT=0 SourceSecurityID=25001"
)
ENDPOINTS = """\
ID    NAME          INGRESS   EGRESS   IDENTITY  ADDRESSES     IFNAME           STATUS
2825  default/curl  disabled  enabled  25001     10.244.0.108  lxca7eadf015921  ready
"""
ENDPOINT = """\
ID:              2825
Name:            default/curl
Status:          ready
Identity:        25001
Labels:          app=curl
Addresses:       10.244.0.108
MAC:             96:86:44:a6:37:01
Node MAC:        d2:ad:65:4d:d0:01
Device:          lxca7eadf015921, ifindex 75
Namespace:       -
Ingress policy:  disabled
Egress policy:   enabled
"""
NODES = """\
NAME   IP              POD-CIDR       VNI       IDENTITY  SELF
node1  192.168.56.105  10.244.0.0/24  identity  -         yes
node2  192.168.56.106  10.244.2.0/24  identity  -         no
"""
IPCACHE_GET = """\
PREFIX           IDENTITY  NAME   TUNNEL-ENDPOINT  FLAGS
10.244.2.171/32  25002     25002  192.168.56.106   -
"""
IPCACHE = {
    "PREFIX             IDENTITY  NAME         TUNNEL-ENDPOINT  FLAGS",
    "0.0.0.0/0          2         world        -                -",
    "::/0               2         world        -                -",
    "10.244.2.0/24      2         world        192.168.56.106   -",
    "192.168.56.105/32  1         host         -                -",
    "10.244.0.150/32    1         host         -                -",
    "192.168.56.106/32  6         remote-node  -                -",
    "10.244.0.108/32    25001     25001        -                -",
    "10.244.2.171/32    25002     25002        192.168.56.106   -",
}
METRICS = {
    "REASON         DIRECTION  PACKETS  BYTES",
    "Success        EGRESS     2        108",
    "Received       UNKNOWN    2        96",
    "Sent           EGRESS     1        54",
    "Policy denied  EGRESS     1        42",
}


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("endpoint list", ENDPOINTS),
        ("endpoint get 2825", ENDPOINT),
        ("endpoint get default/curl", ENDPOINT),
        ("node list", NODES),
        ("peer list", NODES),
        ("ipcache get 10.244.2.171", IPCACHE_GET),
        ("ct list", ""),
    ],
)
def test_literal_output(lab: LabDaemon, command: str, text: str):
    """Exactly this, and nothing on stderr."""
    ran = fwd(*command.split(), socket=lab.socket)
    assert (ran.out, ran.err, ran.code) == (text, "", 0)


def test_ipcache_list(lab: LabDaemon):
    """Every prefix once, in no promised order."""
    lines = fwd("ipcache", "list", socket=lab.socket).out.splitlines()
    assert (set(lines), len(lines)) == (IPCACHE, 9)


def test_ct_list(lab: LabDaemon):
    """Both maps, from initiator to responder."""
    lab.send(syn())
    assert fwd("ct", "list", socket=lab.socket).out == (
        f"TCP OUT 10.244.0.108:43512 -> 10.244.2.171:80 expires=61 {CT}\n"
        f"ICMP OUT 10.244.0.108:0 -> 10.244.2.171:0 related expires=61 {CT}\n"
    )


def test_nat_list(lab: LabDaemon):
    """Both halves of a mapping, and the same under Cilium's spelling and as JSON."""
    assert fwd("nat", "list", socket=lab.socket).out == ""
    settings = replace(lab.call(lambda: lab.agent.dp.settings), masquerade=True)
    lab.call(lambda: lab.agent.dp.set_settings(settings))
    frame = syn(dst="203.0.113.9")
    lab.call(lambda: lab.agent.dp.run(7, [Packet(frame, PORT_NETDEV, to_netdev=True)]))
    text = fwd("nat", "list", socket=lab.socket).out
    assert set(text.splitlines()) == {
        "TCP OUT 10.244.0.108:43512 -> 203.0.113.9:80 XLATE_SRC 192.168.56.105:43512",
        "TCP IN 203.0.113.9:80 -> 192.168.56.105:43512 XLATE_DST 10.244.0.108:43512",
    }
    assert fwd("bpf", "nat", "list", socket=lab.socket).out == text
    found = json.loads(fwd("nat", "list", "-o", "json", socket=lab.socket).out)
    assert {row["created_ns"] for row in found} == {7}


@pytest.mark.parametrize(
    ("which", "protos"), [("tcp", ["TCP"]), ("any", ["ICMP"]), ("all", ["TCP", "ICMP"])]
)
def test_ct_list_json_of_one_map(lab: LabDaemon, which: str, protos: list[str]):
    """--map picks; JSON is one array."""
    lab.send(syn())
    ran = fwd("ct", "list", "--map", which, "-o", "json", socket=lab.socket)
    assert [row["proto"] for row in json.loads(ran.out)] == protos


def test_policy_get(lab: LabDaemon):
    """Each entry stands beside its rule and the rule's line."""
    lab.send(syn())
    assert (
        fwd("policy", "get", "default/curl", socket=lab.socket).out
        == f"""\
POLICY  DIRECTION  IDENTITY  PORT/PROTO  BYTES  PACKETS  RULE
Allow   Ingress    any       ANY         0      0        \
default allow: default/curl enforces no ingress policy
Allow   Egress     25002     80/TCP      54     1        \
allow default/curl egress to identity 25002 proto tcp port 80 ({lab.agent.path}:22)
"""
    )


def test_metrics_list(lab: LabDaemon):
    """Reasons as texts, one row a direction."""
    lab.send(syn())
    lab.send(udp())
    assert set(fwd("metrics", "list", socket=lab.socket).out.splitlines()) == METRICS


def test_metrics_list_by_pattern(lab: LabDaemon):
    """A pattern narrows the reasons; a broken one is a usage error."""
    lab.send(udp())
    ran = fwd("metrics", "list", "-p", "^policy", "-o", "json", socket=lab.socket)
    assert [row["reason"] for row in json.loads(ran.out)] == ["Policy denied"]
    ran = fwd("metrics", "list", "-p", "(", socket=lab.socket)
    assert ran.code == 2
    assert "is no regular expression" in ran.err


def test_metrics_list_of_the_pump(lab: LabDaemon):
    """Its counters with their rates and ratios, as a table and as JSON."""
    ran = fwd("metrics", "list", "--pump", "-p", "wakeup", socket=lab.socket)
    assert ran.out.splitlines() == [
        "COUNTER             VALUE  PER-SECOND",
        "wakeups             3      0.0",
        "packets_per_wakeup  4.0    -",
    ]
    ran = fwd("metrics", "list", "--pump", "-o", "json", socket=lab.socket)
    found = {row["counter"]: row["value"] for row in json.loads(ran.out)}
    assert found["rx_packets"] == 12


@pytest.mark.parametrize("noun", ["endpoint", "ipcache", "node", "ct", "metrics"])
def test_lists_as_json_are_arrays(lab: LabDaemon, noun: str):
    """Every list has its JSON."""
    assert isinstance(json.loads(fwd(noun, "list", "-o", "json", socket=lab.socket).out), list)


@pytest.mark.parametrize("command", ["endpoint get 2825", "ipcache get 10.244.0.108"])
def test_gets_as_json_are_objects(lab: LabDaemon, command: str):
    """Every get has its JSON."""
    ran = fwd(*command.split(), "-o", "json", socket=lab.socket)
    assert json.loads(ran.out)["identity"] == 25001


@pytest.mark.parametrize("command", ["endpoint get 9", "policy get nobody"])
def test_absent_objects_exit_4(lab: LabDaemon, command: str):
    """No such object: 4, with the command that lists what there is."""
    ran = fwd(*command.split(), socket=lab.socket)
    name = command.rsplit(maxsplit=1)[-1]
    assert (ran.code, ran.err) == (4, f"fwd: no endpoint '{name}'; see: fwd endpoint list\n")


def test_ipcache_get_of_no_address_is_usage(lab: LabDaemon):
    """A typo does not reach the daemon."""
    ran = fwd("ipcache", "get", "frob", socket=lab.socket)
    assert ran.code == 2
    assert "'frob' is not an IP address" in ran.err
