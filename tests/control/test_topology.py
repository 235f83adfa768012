"""Topology: node files of a lab differ from their source only in what a lab must decide."""

from __future__ import annotations

import sys

import pytest
from ruamel.yaml import YAML

from fwd.config.load import load_node_file
from fwd.control import lab as lab_module
from fwd.control.lab import Lab, LabError
from fwd.control.topology import LabNode, Topology, read_node_file
from tests.netns.worlds import pod, two_nodes


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab whose namespaces are only names."""
    monkeypatch.setattr(lab_module, "STATE_ROOT", tmp_path)
    with Lab("t") as lab:
        made: list[str] = []
        monkeypatch.setattr(lab, "namespace", made.append)
        monkeypatch.setattr(lab, "argv", lambda _short, argv: list(argv))
        lab.made = made
        yield lab


def test_node_file_is_kept_but_for_sockets_and_namespaces(lab):
    """Every other key reaches the daemon as it was, and the file loads."""
    data, _ = two_nodes([pod("node1", 0, mac="96:86:44:a6:37:01")], [pod("node2", 0)])
    node = Topology(lab).add_node(data)
    written = YAML(typ="safe", pure=True).load(node.config)
    assert written.pop("api") == {"socket": str(node.socket)}
    assert written["endpoints"][0].pop("netns") == lab.name("a0")
    assert written == data
    assert load_node_file(node.config).endpoints[0].mac.hex() == "968644a63701"


def test_each_endpoint_gets_a_namespace_once(lab):
    """A second write of the file makes namespaces only for endpoints that are new."""
    topology = Topology(lab)
    data, _ = two_nodes([pod("node1", 0)], [])
    node = topology.add_node(data)
    more, _ = two_nodes([pod("node1", 0), pod("node1", 1)], [])
    topology.write(node, more)
    assert lab.made == ["node1", "a0", "a1"]
    assert node.pods == {"default/a0": "a0", "default/a1": "a1"}


def test_read_node_file_is_plain_data(tmp_path):
    """A MAC stays text and an address too: YAML 1.2, no guesses."""
    path = tmp_path / "n.yaml"
    path.write_text("node: {name: n, mac: 12:34:56:12:34:56, ip: 192.0.2.1}\n")
    assert read_node_file(path)["node"]["mac"] == "12:34:56:12:34:56"


def test_a_daemon_that_ends_at_once_shows_its_log(lab, monkeypatch):
    """The error holds the exit status and the last lines the daemon wrote."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    topology = Topology(lab)
    node = topology.add_node(two_nodes([], [])[0])
    with pytest.raises(LabError, match=r"(?s)node1 exited 1; its log ends"):
        topology.start(node)


def test_stop_of_a_node_that_never_ran_is_fine(lab):
    """Nothing to end is a success."""
    assert Topology(lab).stop(LabNode("n", "192.0.2.1", lab.directory, lab.directory))
