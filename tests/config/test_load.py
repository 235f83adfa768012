"""Node files: the contract's example, defaults, and one line for every error."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwd.config.load import ConfigError, load_node_file, parse_node_text

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = "node: {name: n1, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}\n"
POD = "endpoints:\n  - {name: a, id: 10, identity: 100, ip: 10.0.0.10}\n"


def error_of(text: str) -> str:
    """The one line that refuses ``text``."""
    with pytest.raises(ConfigError) as caught:
        parse_node_text(text, Path("w.yaml"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["node1", "node2"])
def test_shipped_node_files_load_without_warnings(name):
    """The node files of configs/ are valid and use nothing this version ignores."""
    node = load_node_file(ROOT / "configs" / f"{name}.yaml")
    assert node.node.name == name
    assert node.warnings == ()


def test_defaults_fill_every_optional_section():
    """A file of only `node` has the documented defaults and no metrics listener."""
    node = parse_node_text(MINIMAL, Path("w.yaml"))
    assert (node.conntrack.capacity.tcp, node.conntrack.capacity.any) == (524288, 262144)
    assert (node.conntrack.lifetimes_s.tcp, node.conntrack.lifetimes_s.tcp_close) == (8000, 10)
    assert node.features.fragments
    assert not node.features.masquerade
    assert node.metrics is None
    assert node.api.socket == "/run/fwd/fwd.sock"
    assert (node.tunnel.port, node.tunnel.mtu) == (8472, "auto")


def test_rows_carry_their_line():
    """Every row knows where it stands, also behind comments and in flow style."""
    node = parse_node_text(MINIMAL + "# a comment\n" + POD, Path("w.yaml"))
    assert node.endpoints[0].line == 4
    assert node.node.line == 1


def test_empty_sections_are_left_out_sections():
    """`peers:` with nothing behind it means no peers, not a type error."""
    node = parse_node_text(MINIMAL + "peers:\nmetrics:\n", Path("w.yaml"))
    assert node.peers == ()
    assert node.metrics is None


def test_macs_are_text_with_and_without_quotes():
    """A MAC of digits only is no base-60 number, as YAML 1.1 would have it."""
    quoted, bare = ("{name: a, id: 1, identity: 9, ip: 10.0.0.9, mac: " + mac + "}" for mac in
                    ('"12:34:56:12:34:56"', "12:34:56:12:34:56"))  # fmt: skip
    for row in (quoted, bare):
        node = parse_node_text(f"{MINIMAL}endpoints: [{row}]\n", Path("w.yaml"))
        assert node.endpoints[0].mac == bytes.fromhex("123456123456")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tunel: {}\n", "w.yaml:2: tunel: unknown key, did you mean 'tunnel'?"),
        ("conntrack:\n  lifetimes_s:\n    tpc: 3\n",
         "w.yaml:4: conntrack.lifetimes_s.tpc: unknown key, did you mean 'tcp'?"),
        ("zzz: 1\n", "w.yaml:2: zzz: unknown key, the keys here: node, tunnel, "),
        ("peers: 3\n", "w.yaml:2: peers: 3 has the wrong type, write a list"),
        ("tunnel: vxlan\n", "w.yaml:2: tunnel: 'vxlan' has the wrong type, write a mapping"),
        ("features: {fragments: yes}\n",
         "w.yaml:2: features.fragments: 'yes' has the wrong type, write true or false"),
        ("conntrack: {capacity: {tcp: 0}}\n",
         "w.yaml:2: conntrack.capacity.tcp: 0 is out of range, write 1 or more"),
        ("conntrack: {capacity: {tcp: 99999999}}\n",
         "w.yaml:2: conntrack.capacity.tcp: 99999999 is out of range, write 16777216 or less"),
        ("tunnel: {protocol: geneve}\n",
         "w.yaml:2: tunnel.protocol: 'geneve' is not known here, write 'vxlan' or 'disabled'"),
        ("manifests: [80]\n",
         "w.yaml:2: manifests: 80 is not a path, write a manifest file"),
        ("metrics: {listen: here}\n", "w.yaml:2: metrics.listen: 'here' is not an address"),
        ("ipcache: [{prefix: 10.0.0.9}]\n",
         "w.yaml:2: ipcache[0]: whose is it? write identity (a number) or pod"),
        ("peers: [{name: b, ip: 'fd00::1'}]\n", "w.yaml:2: peers[0].ip: 'fd00::1' is IPv6"),
        ("node: {}\n", 'w.yaml:2: not YAML: found duplicate key "node"'),
        ("peers: [}\n", "w.yaml:2: not YAML: "),
        ("policy: &p [*p]\n", "w.yaml:2: policy[0]: an empty value has the wrong type"),
    ],
)  # fmt: skip
def test_errors_name_file_line_key_and_what_to_do(text, error):
    """Each mistake is refused by one line that starts with its place."""
    assert error_of(MINIMAL + text).startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "w.yaml:1: a node file is a mapping"),
        ("- node\n", "w.yaml:1: a node file is a mapping"),
        ("peers: []\n", "w.yaml:1: node: missing, add it"),
        ("a: 1\n---\nb: 2\n", "w.yaml:2: not YAML: "),
        ("a: \x07\n", "w.yaml:1: not YAML: "),
    ],
)
def test_files_that_are_no_mapping_are_refused(text, error):
    """Empty files, lists, several documents and control bytes are told apart."""
    assert error_of(text).startswith(error)


def test_first_error_of_the_file_is_told():
    """Of several mistakes the topmost is named, whichever check finds it."""
    text = MINIMAL + "peers:\n  - {name: b, ip: 192.0.2.1}\nendpoints:\n  - {name: a}\n"
    assert error_of(text).startswith("w.yaml:5: endpoints[0].")
    late = text.replace("{name: a}", "{name: a, id: 1, identity: 9, ip: 10.9.0.1}")
    assert error_of(late).startswith("w.yaml:3: peers[0].ip: 192.0.2.1 is the node's already")


def test_unreadable_files_are_named(tmp_path):
    """A missing file and one that is not UTF-8 are refused with their path."""
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read the node file: No such file"):
        load_node_file(tmp_path / "none.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"node: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 at byte 6"):
        load_node_file(latin)


def test_what_has_no_effect_yet_is_warned_of_by_line():
    """Service rows and switches this version ignores give one warning each, with file and line."""
    text = MINIMAL + (
        "services:\n"
        "  - {name: s, frontend: 10.96.0.10, port: 80, flags: [node_port]}\n"
        "features:\n  masquerade: true\n"
    )
    warnings = parse_node_text(text, Path("w.yaml")).warnings
    assert [line.split(": ")[:2] for line in warnings] == [
        ["w.yaml:3", "services[0].flags"],
    ]
    assert parse_node_text(text + "  nodeport: true\n", Path("w.yaml")).warnings == ()


def with_drop_ins(directory: Path, *texts: str) -> Path:
    """A node file and its drop-ins, 0.yaml, 1.yaml and so on."""
    path = directory / "n.yaml"
    path.write_text(MINIMAL + "peers:\n  - {name: b, ip: 192.0.2.2, pod_cidr: 10.1.0.0/24}\n")
    (directory / "n.yaml.d").mkdir()
    for number, text in enumerate(texts):
        (directory / "n.yaml.d" / f"{number}.yaml").write_text(text)
    return path


def test_drop_ins_merge_mappings_and_replace_lists(tmp_path):
    """The later file wins, the environment over all of them."""
    path = with_drop_ins(
        tmp_path,
        "conntrack: {lifetimes_s: {tcp: 100, any: 10}}\n",
        "conntrack: {lifetimes_s: {tcp: 200}}\npeers: []\n",
        "# nothing yet\n",
    )
    node = load_node_file(path, {"FWD_TUNNEL_PORT": "4789", "FWD_NODE_ROUTER_IP": "[10.0.0.2]"})
    assert (node.conntrack.lifetimes_s.tcp, node.conntrack.lifetimes_s.any) == (200, 10)
    assert node.peers == ()
    assert (node.tunnel.port, [str(one) for one in node.node.router_ip]) == (4789, ["10.0.0.2"])
    assert load_node_file(path).tunnel.port == 8472, "the environment counts where it is given"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\ntunel: {}\n", "n.yaml.d/0.yaml:2: tunel: unknown key, did you mean 'tunnel'?"),
        ("tunnel:\n  port: 0\n", "n.yaml.d/0.yaml:2: tunnel.port: 0 is out of range"),
        ("a: [\n", "n.yaml.d/0.yaml:2: not YAML: "),
        ("- a\n", "n.yaml.d/0.yaml:1: a node file is a mapping"),
        (f"\n{POD.replace('10.0.0.10', '10.9.0.1')}",
         "n.yaml.d/0.yaml:3: endpoints[0].ip: 10.9.0.1 is outside node.pod_cidr"),
    ],
)  # fmt: skip
def test_errors_in_drop_ins_name_their_file_and_line(tmp_path, text, error):
    """As those of the node file do."""
    with pytest.raises(ConfigError) as caught:
        load_node_file(with_drop_ins(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path}/{error}")


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"FWD_NODE_IP": "here"}, "$FWD_NODE_IP: node.ip: 'here'"),
        ({"FWD_TUNNEL_PORT": "99999"}, "$FWD_TUNNEL_PORT: tunnel.port: 99999 is out of range"),
        ({"FWD_METRICS_LISTEN": "x"}, "$FWD_METRICS_LISTEN: metrics.listen: 'x'"),
        ({"FWD_NODE_NAME": "[a"}, "$FWD_NODE_NAME: not YAML: "),
    ],
)
def test_errors_in_variables_name_the_variable(tmp_path, environ, error):
    """There is no line to name."""
    with pytest.raises(ConfigError) as caught:
        load_node_file(with_drop_ins(tmp_path), environ)
    assert str(caught.value).startswith(error)


def test_sections_of_drop_ins_know_their_place(tmp_path):
    """What is said later of a section, at start or reload, names its own file."""
    node = load_node_file(with_drop_ins(tmp_path, "\n" + POD))
    assert node.where(node.endpoints[0].line) == (f"{tmp_path}/n.yaml.d/0.yaml", 3)
    assert node.place(node.node.line) == f"{tmp_path}/n.yaml:1"
