"""Files and variables in their order, and lines counted through them."""

from __future__ import annotations

import pytest

from fwd.config.load import load_node_file
from fwd.config.pieces import (
    ENVIRONMENT,
    Piece,
    count,
    drop_ins,
    format_place,
    ignored,
    variables,
    where,
)
from fwd.config.schema import NodeFile


def test_drop_ins_are_yaml_files_in_order_of_their_names(tmp_path):
    """Other files are not ours, and without the directory there are none."""
    path = tmp_path / "fwd.yaml"
    assert list(drop_ins(path)) == []
    directory = tmp_path / "fwd.yaml.d"
    directory.mkdir()
    for name in ("20-b.yaml", "10-a.yaml", "notes.txt", "30-c.yaml.dpkg-old"):
        (directory / name).write_text("")
    assert [one.name for one in drop_ins(path)] == ["10-a.yaml", "20-b.yaml"]


def test_variables_that_are_set_count():
    """Empty ones and other programs' do not."""
    environ = {"FWD_NODE_IP": "192.0.2.1", "FWD_TUNNEL_PORT": "", "FWD_SOCKET": "/x", "HOME": "/"}
    assert list(variables(environ)) == [Piece("$FWD_NODE_IP", "192.0.2.1", ("node", "ip"))]


@pytest.mark.parametrize(("name", "key"), ENVIRONMENT.items())
def test_every_variable_names_a_key_of_the_file(name, key):
    """`FWD_TUNNEL_PORT` is `tunnel.port`: one rule for all."""
    section, leaf = key
    assert name == f"FWD_{section}_{leaf}".upper()
    kind = NodeFile.model_fields[section].annotation
    assert leaf in (getattr(kind, "model_fields", None) or kind.__args__[0].model_fields)


def test_lines_are_counted_through():
    """Each piece's own first line is 1; a variable has no lines."""
    pieces = [Piece("a", "1\n2\n"), Piece("b", "1"), Piece("$V", "x", ("node", "ip"))]
    places = count(pieces)
    found = [where(places, line) for line in range(1, 6)]
    assert found == [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("$V", 0)]
    assert (format_place(places, 4), format_place(places, 5)) == ("b:1", "$V")


def test_what_is_ignored_gets_a_word(tmp_path):
    """Names that look like ours and are not read; the rest of a host's is none of our business."""
    path = tmp_path / "fwd.yaml"
    path.write_text("node: {name: n, ip: 192.0.2.1, pod_cidr: 10.0.0.0/24, router_ip: 10.0.0.1}\n")
    known = dict.fromkeys(ENVIRONMENT, "") | {"FWD_SOCKET": "s", "FWD_DOOR_SOCKET": "d"}
    known |= {"FWD_UNIT": "u", "FDSTORE": "1", "FWDX": "1", "FWD_TEST_EXTENSION": "x"}
    assert list(ignored(path, known)) == []
    directory = tmp_path / "fwd.yaml.d"
    directory.mkdir()
    for name in ("a.yaml", "b.yml", "c.yaml.dpkg-old", ".b.yaml.swp"):
        (directory / name).write_text("")
    environ = known | {"FWD_TUNNEL_PROT": "1", "FWD_FROB": "2"}
    assert load_node_file(path, environ).warnings == (
        f"{directory}/b.yml: ignored, drop-ins are *.yaml: rename it, or move it away",
        f"{directory}/c.yaml.dpkg-old: ignored, drop-ins are *.yaml: rename it, or move it away",
        "$FWD_FROB: ignored, no key has this variable, see ENVIRONMENT in man fwd.yaml",
        "$FWD_TUNNEL_PROT: ignored, no key has this variable, did you mean FWD_TUNNEL_PORT?",
    )
