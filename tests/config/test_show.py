"""Settings of a node file: all of them, where each is from, what differs, and no secrets."""

from __future__ import annotations

from pathlib import Path

from fwd.config.load import load_node_file, parse_node_text
from fwd.config.show import differences, origin, redacted, redacted_text, settings

NODE = "node: {name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}\n"
PODS = """\
endpoints:
  - {name: default/a, id: 10, identity: 100, ip: 10.0.0.10, enforce: {ingress: true}}
"""


def test_settings_have_every_key_and_rows_by_name():
    """Defaults of sections are in it, of rows only what differs."""
    flat = settings(parse_node_text(NODE + PODS, Path("n.yaml")))
    assert flat["node.pod_cidr"] == ["10.0.0.0/24"]
    assert flat["tunnel.port"] == 8472
    assert flat["conntrack.lifetimes_s.tcp"] == 8000
    row = {key: value for key, value in flat.items() if key.startswith("endpoints[default/a].")}
    assert row["endpoints[default/a].enforce.ingress"] is True
    assert "endpoints[default/a].enforce.egress" not in row
    assert row["endpoints[default/a].mac"].count(":") == 5, "derived values are shown"
    assert flat["metrics"] is None


def test_origins_name_file_drop_in_variable_or_default(tmp_path):
    """Of each value that one that won."""
    path = tmp_path / "n.yaml"
    path.write_text(NODE + "tunnel: {port: 4789, mtu: 1400}\n" + PODS)
    (tmp_path / "n.yaml.d").mkdir()
    over = tmp_path / "n.yaml.d" / "1.yaml"
    over.write_text(
        "# mine\ntunnel:\n  mtu: 1300\nendpoints:\n  - {name: b, id: 2, ip: 10.0.0.2}\n"
    )
    node = load_node_file(path, {"FWD_NODE_IP": "192.0.2.9"})
    flat, places = settings(node), origin(node)
    assert flat.keys() == places.keys()
    found = {key: (flat[key], places[key]) for key in flat}
    assert found["node.ip"] == ("192.0.2.9", "$FWD_NODE_IP")
    assert found["node.name"] == ("n1", f"{path}:1")
    assert found["tunnel.port"] == (4789, f"{path}:2")
    assert found["tunnel.mtu"] == (1300, f"{over}:3")
    assert found["tunnel.protocol"] == ("vxlan", "default")
    assert found["endpoints[b].id"] == (2, f"{over}:5")
    assert found["endpoints[b].mac"][1] == "default"


def test_differences_are_removed_and_added_lines():
    """What both have alike is not mentioned."""
    old, new = {"a": 1, "b": 2, "c": [3]}, {"a": 1, "b": 4, "d": None}
    assert list(differences(old, new)) == ["- b: 2", "+ b: 4", "- c: [3]", "+ d: -"]
    assert list(differences(old, old)) == []


def test_secrets_are_cut_out_of_labels_and_rows():
    """At any depth, in mappings and in texts; what only looks alike stays, the original too."""
    text = NODE + "endpoints: [{name: a, id: 1, identity: 9, ip: 10.0.0.2, labels: {db-token: x}}]"
    flat = settings(parse_node_text(text, Path("n.yaml")))
    assert redacted(flat)["endpoints[a].labels"] == {"db-token": "<removed>"}
    assert flat["endpoints[a].labels"] == {"db-token": "x"}
    rows = [
        {"identity": 7, "labels": ["k8s:api-token=s3 'cr3t", "k8s:app=token-server", "app"]},
        {"name": "token-server", "labels": {"app": "web", "apiKey": "y", "PASSWD": ["z"]}},
    ]
    assert redacted(rows) == [
        {"identity": 7, "labels": ["k8s:api-token=<removed>", "k8s:app=token-server", "app"]},
        {"name": "token-server",
         "labels": {"app": "web", "apiKey": "<removed>", "PASSWD": "<removed>"}},
    ]  # fmt: skip
    line = 'reload refused error="labels {k8s:api-token=s3cr3t, app=token}" private_key=/k'
    assert redacted_text(line) == (
        'reload refused error="labels {k8s:api-token=<removed>, app=token}" private_key=<removed>'
    )


def test_secrets_are_cut_out():
    """By the name of their key; names of rows are no keys."""
    flat = {"etcd.password": "x", "api.token": "y", "endpoints[secret-pod].ip": ["10.0.0.1"]}
    assert redacted(flat) == {
        "etcd.password": "<removed>", "api.token": "<removed>",
        "endpoints[secret-pod].ip": ["10.0.0.1"],
    }  # fmt: skip
