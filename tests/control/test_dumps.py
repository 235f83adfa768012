"""Dumps: whole tables as rows that two runs can compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fwd.control.dumps import DUMP_TABLES, dump_rows
from fwd.control.replay_node import ReplayNode
from fwd.datapath.packet import Packet

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def node():
    """Node 1, after one frame too short for Ethernet."""
    made = ReplayNode(ROOT / "configs/node1.yaml", seed=0)
    made.run(0, Packet(b"\0", 2825))
    yield made
    made.close()


@pytest.mark.parametrize("table", DUMP_TABLES)
def test_every_table_dumps_as_json(node, table):
    """Each name of the contract gives a list of JSON objects with one set of keys."""
    rows = json.loads(json.dumps(dump_rows(node.dp, node.world, table)))
    assert len({tuple(row) for row in rows}) <= 1
    assert bool(rows) == (table in ("ipcache", "policy", "lxc", "metrics"))


def test_tables_are_the_seven_of_the_contract():
    """No table is missing and none is added."""
    assert set(DUMP_TABLES) == {"ct", "ipcache", "lb", "policy", "lxc", "nat", "metrics"}


def test_lxc_rows_join_address_and_endpoint(node):
    """A pod's address shows its endpoint's numbers; the node's own has none."""
    rows = {row["ip"]: row for row in dump_rows(node.dp, node.world, "lxc")}
    pod, router = rows["10.244.0.108"], rows["10.244.0.150"]
    assert (pod["id"], pod["ifindex"], pod["mac"]) == (2825, 75, "96:86:44:a6:37:01")
    assert (router["host"], router["mac"]) == (True, None)


def test_metrics_name_their_reason(node):
    """The dropped frame is counted under its reason's text."""
    rows = dump_rows(node.dp, node.world, "metrics")
    (drop,) = (row for row in rows if row["reason"] >= 130)
    assert (drop["text"], drop["direction"], drop["packets"]) == (
        "Unsupported L2 protocol", "egress", 1
    )  # fmt: skip


def test_ipcache_is_sorted_by_address_not_text(node):
    """10.244.2.0/24 comes before 10.244.2.150/32, IPv4 before IPv6."""
    prefixes = [row["prefix"] for row in dump_rows(node.dp, node.world, "ipcache")]
    assert prefixes[0] == "0.0.0.0/0"
    assert prefixes[-1] == "::/0"
    assert prefixes.index("10.244.2.0/24") < prefixes.index("10.244.2.150/32")


def test_services_dump_with_their_slots(tmp_path):
    """The frontends of the node file, with the numbers that connections name."""
    path = tmp_path / "w.yaml"
    path.write_text(
        (ROOT / "configs/node1.yaml").read_text()
        + "services:\n  - {name: web, frontend: 10.96.0.10, port: 80, backends: "
        "[{ip: 10.244.2.171, port: 8080}]}\n"
    )
    node = ReplayNode(path, seed=0)
    (row,) = json.loads(json.dumps(dump_rows(node.dp, node.world, "lb")))
    node.close()
    (service,), (backend,) = node.world.services, node.world.backends
    assert (row["name"], row["frontend"], row["rev_nat_id"]) == (
        "web", "10.96.0.10", service.rev_nat_id
    )  # fmt: skip
    assert row["backends"] == [
        {"slot": 1, "id": backend.id, "ip": "10.244.2.171", "port": 8080, "state": "active"}
    ]
