"""`fwd service` and `fwd lb`, against a daemon with two services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.daemon import LabDaemon, lab_daemon
from tests.api.frames import NODE
from tests.cli.invoke import fwd

SERVICES = """
services:
  - name: default/web
    frontend: 10.96.0.10
    port: 80
    flags: [affinity]
    affinity_timeout_s: 60
    backends: [{ip: 10.244.2.171, port: 8080}, {ip: 10.244.2.172, port: 8080, state: terminating}]
  - {name: default/dns, frontend: 10.96.0.11, port: 53, proto: udp}
"""


OUTSIDE = """
features: {nodeport: true}
services:
  - name: default/outside
    frontend: 203.0.113.80
    port: 80
    flags: [load_balancer, routable, ext_local, source_range]
    source_ranges: [198.51.100.0/24, 10.0.0.0/8]
    backends: [{ip: 10.244.0.108, port: 8080}, {ip: 10.244.2.171, port: 8080}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabDaemon]:
    """A daemon of node1 with services."""
    with lab_daemon(tmp_path_factory.mktemp("lab"), NODE + SERVICES) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def rows(lab: LabDaemon) -> dict[str, dict]:
    """Its services as JSON by name."""
    return {row["name"]: row for row in json.loads(
        fwd("service", "list", "-o", "json", socket=lab.socket).out)}  # fmt: skip


def test_service_list(lab: LabDaemon, rows) -> None:
    """One line a service."""
    lines = fwd("service", "list", socket=lab.socket).out.splitlines()
    web, dns = (rows[f"default/{name}"]["rev_nat_id"] for name in ("web", "dns"))
    assert [line.split() for line in lines] == [
        ["ID", "NAME", "FRONTEND", "TYPE", "BACKENDS"],
        [str(web), "default/web", "10.96.0.10:80/TCP", "ClusterIP",
         "10.244.2.171:8080,10.244.2.172:8080(terminating)"],
        [str(dns), "default/dns", "10.96.0.11:53/UDP", "ClusterIP", "-"],
    ]  # fmt: skip


def test_service_get(lab: LabDaemon, rows) -> None:
    """By name, id and frontend it is the same; in JSON it is the list's row."""
    row = rows["default/web"]
    for name in ("default/web", str(row["rev_nat_id"]), "10.96.0.10:80", "10.96.0.10:80/TCP"):
        done = fwd("service", "get", name, socket=lab.socket)
        assert done.code == 0
        shown = dict(line.split(":", 1) for line in done.out.splitlines())
        found = {key: text.strip() for key, text in shown.items()}
        assert found["Name"] == "default/web"
        assert found["Affinity"] == "60 s"
        assert found["Source ranges"] == found["Maglev"] == "-"
        assert found["External traffic"] == found["Internal traffic"] == "Cluster"
        number = row["backends"][1]["id"]
        assert found["Backend 2"] == f"10.244.2.172:8080(terminating) id {number}"
    assert json.loads(
        fwd("service", "get", "default/web", "-o", "json", socket=lab.socket).out
    ) == [row | {"maglev": None}]


def test_service_get_shows_what_outsiders_meet(tmp_path: Path) -> None:
    """Source ranges, the traffic policy, and how the Maglev table is shared out."""
    with lab_daemon(tmp_path, NODE + OUTSIDE) as lab:
        out = fwd("service", "get", "default/outside", socket=lab.socket).out
        (row,) = json.loads(
            fwd("service", "get", "default/outside", "-o", "json", socket=lab.socket).out
        )
    shares = row["maglev"]["places"]
    assert (row["maglev"]["size"], sum(shares.values())) == (1021, 1021)
    assert set(shares.values()) == {510, 511}
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert lines >= {
        "Source ranges: 10.0.0.0/8,198.51.100.0/24",
        "External traffic: Local",
        "Internal traffic: Cluster",
        "Maglev: 1021 places",
        *(
            f"Backend {one['slot']}: {one['ip']}:8080 id {number}, {shares[str(number)]} places"
            for one in row["backends"]
            if (number := one["id"])
        ),
    }


def test_no_such_service(lab: LabDaemon) -> None:
    """Exit code 4 and what to do."""
    done = fwd("service", "get", "default/none", socket=lab.socket)
    assert (done.code, done.out) == (4, "")
    assert "no service 'default/none'; see: fwd service list" in done.err


def test_lb_list_in_both_spellings(lab: LabDaemon, rows) -> None:
    """`fwd lb list` and Cilium's `bpf lb list` print the same table."""
    web = rows["default/web"]["rev_nat_id"]
    done = fwd("lb", "list", socket=lab.socket)
    lines = done.out.splitlines()
    assert lines[0].split("   ")[0] == "SERVICE ADDRESS"
    assert " ".join(lines[1].split()) == (
        f"10.96.0.10:80/TCP (0) 0.0.0.0:0 ({web}) (0) [ClusterIP, sessionAffinity, non-routable]"
    )
    assert " ".join(lines[2].split()) == f"10.96.0.10:80/TCP (1) 10.244.2.171:8080/TCP ({web}) (1)"
    assert fwd("bpf", "lb", "list", socket=lab.socket).out == done.out
    assert json.loads(fwd("lb", "list", "-o", "json", socket=lab.socket).out) == list(rows.values())


def test_services_as_a_map(lab: LabDaemon) -> None:
    """`fwd map get` shows the same rows as key and value."""
    lines = fwd("map", "get", "cilium_lb4_services_v2", socket=lab.socket).out.splitlines()
    shown = fwd("lb", "list", socket=lab.socket).out.splitlines()
    assert [line.split()[:-1] for line in lines[1:]] == [line.split() for line in shown[1:]]
    assert {line.split()[-1] for line in lines[1:]} == {"sync"}
