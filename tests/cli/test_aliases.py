"""Cilium's spellings print Cilium's shapes (reference 8.6)."""

from __future__ import annotations

import json

import pytest

from tests.api.daemon import LabDaemon
from tests.api.frames import syn
from tests.cli.invoke import fwd
from tests.cli.test_tables import CT

IPCACHE = {
    "Key                 Value                                                       State   Error",
    "0.0.0.0/0           identity=2 encryptkey=0 tunnelendpoint=0.0.0.0              sync",
    "::/0                identity=2 encryptkey=0 tunnelendpoint=0.0.0.0              sync",
    "10.244.2.0/24       identity=2 encryptkey=0 tunnelendpoint=192.168.56.106       sync",
    "192.168.56.105/32   identity=1 encryptkey=0 tunnelendpoint=0.0.0.0              sync",
    "10.244.0.150/32     identity=1 encryptkey=0 tunnelendpoint=0.0.0.0              sync",
    "192.168.56.106/32   identity=6 encryptkey=0 tunnelendpoint=0.0.0.0              sync",
    "10.244.0.108/32     identity=25001 encryptkey=0 tunnelendpoint=0.0.0.0          sync",
    "10.244.2.171/32     identity=25002 encryptkey=0 tunnelendpoint=192.168.56.106   sync",
}
LXC_VALUE = "id=2825  flags=0x0000 ifindex=75  mac=96:86:44:A6:37:01 nodemac=D2:AD:65:4D:D0:01"
LXC = f"""\
Key                Value{" " * 79}State   Error
10.244.0.108:0     {LXC_VALUE}   sync
10.244.0.150:0     (localhost){" " * 73}sync
192.168.56.105:0   (localhost){" " * 73}sync
"""
BPF_LXC = f"""\
IP ADDRESS         LOCAL ENDPOINT INFO
10.244.0.108:0     {LXC_VALUE}
10.244.0.150:0     (localhost)
192.168.56.105:0   (localhost)
"""
BPF_TUNNEL = """\
TUNNEL         VALUE
10.244.2.0:0   192.168.56.106:0
"""
BPF_POLICY = """\
POLICY   DIRECTION   LABELS   PORT/PROTO   PROXY PORT   BYTES   PACKETS
Allow    Ingress     ANY      ANY          NONE         0       0
Allow    Egress      25002    80/TCP       NONE         0       0
"""


def test_map_get_ipcache(lab: LabDaemon):
    """The seed's `cilium map get cilium_ipcache`."""
    assert set(fwd("map", "get", "cilium_ipcache", socket=lab.socket).out.splitlines()) == IPCACHE


def test_map_get_lxc(lab: LabDaemon):
    """The seed's `cilium map get cilium_lxc`, column for column."""
    assert fwd("map", "get", "cilium_lxc", socket=lab.socket).out == LXC


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cilium_ct4_global", "TCP OUT 10.244.0.108:43512 -> 10.244.2.171:80"),
        ("cilium_ct_any4_global", "ICMP OUT 10.244.0.108:0 -> 10.244.2.171:0 related"),
    ],
)
def test_map_get_ct(lab: LabDaemon, name: str, key: str):
    """Conntrack as key and value; an empty map says so."""
    assert fwd("map", "get", name, socket=lab.socket).out == f"{name} is empty\n"
    lab.send(syn())
    assert fwd("map", "get", name, socket=lab.socket).out.splitlines()[1] == (
        f"{key}   expires=61 {CT}   sync"
    )


def test_map_get_json(lab: LabDaemon):
    """The same as JSON."""
    rows = json.loads(fwd("map", "get", "cilium_lxc", "-o", "json", socket=lab.socket).out)
    assert rows[0] == {"key": "10.244.0.108:0", "value": LXC_VALUE, "state": "sync"}


def test_map_get_of_an_unknown_name(lab: LabDaemon):
    """No such object: 4, and the names there are."""
    ran = fwd("map", "get", "cilium_frob", socket=lab.socket)
    assert ran.code == 4
    assert ran.err.startswith("fwd: no map 'cilium_frob'; there are: cilium_ipcache, ")


def test_map_list(lab: LabDaemon):
    """The names `map get` takes."""
    assert fwd("map", "list", socket=lab.socket).out.split() == [
        "NAME", "cilium_ipcache", "cilium_lxc", "cilium_ct4_global", "cilium_ct_any4_global",
        "cilium_lb4_services_v2",
    ]  # fmt: skip


def test_bpf_ct_list_global_is_ct_list(lab: LabDaemon):
    """One truth under two names; the scope may be left out, no other exists."""
    lab.send(syn())
    plain = fwd("ct", "list", socket=lab.socket).out
    assert fwd("bpf", "ct", "list", "global", socket=lab.socket).out == plain != ""
    assert fwd("bpf", "ct", "list", socket=lab.socket).out == plain
    assert fwd("bpf", "ct", "list", "local", socket=lab.socket).code == 2


def test_bpf_ipcache_list(lab: LabDaemon):
    """Header and value text of Cilium's command."""
    lines = fwd("bpf", "ipcache", "list", socket=lab.socket).out.splitlines()
    assert lines[0] == "IP PREFIX/ADDRESS   IDENTITY"
    assert "10.244.2.171/32     identity=25002 encryptkey=0 tunnelendpoint=192.168.56.106" in lines


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("bpf endpoint list", BPF_LXC),
        ("bpf policy get 2825", BPF_POLICY),
        ("bpf tunnel list", BPF_TUNNEL),
    ],
)
def test_bpf_literal_output(lab: LabDaemon, command: str, text: str):
    """Exactly Cilium's columns."""
    assert fwd(*command.split(), socket=lab.socket).out == text


@pytest.mark.parametrize(
    ("alias", "command"),
    [
        ("bpf metrics list", "metrics list"),
        ("bpf ipcache get 1.1.1.1", "ipcache get 1.1.1.1"),
        ("bpf lb list", "lb list"),
        ("bpf nat list", "nat list"),
        ("peer list", "node list"),
    ],
)
def test_bpf_same_as_plain(lab: LabDaemon, alias: str, command: str):
    """What has no shape of its own prints as the plain command."""
    lab.send(syn())
    ran = fwd(*alias.split(), socket=lab.socket)
    assert ran.out == fwd(*command.split(), socket=lab.socket).out
    assert ran.code == 0


@pytest.mark.parametrize("command", ["map get cilium_lxc", "bpf ipcache list", "bpf tunnel list",
                                     "bpf policy get 2825", "bpf ct list global", "bpf lb list",
                                     "bpf nat list", "bpf metrics list", "bpf endpoint list",
                                     "identity list", "peer list"])  # fmt: skip
def test_aliases_as_json(lab: LabDaemon, command: str):
    """Every list has its JSON, by whatever name."""
    ran = fwd(*command.split(), "-o", "json", socket=lab.socket)
    assert isinstance(json.loads(ran.out), list)
