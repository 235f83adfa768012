"""Numbers of label sets: derived, the same everywhere, and written ones first."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.config.load import parse_node_text
from fwd.control.identities import ALLOCATED_FIRST, ALLOCATED_LAST, allocate, make_roster
from fwd.manifest.reader import ManifestError
from tests.control.manifests import NODE, pod, said


def roster(text="", manifests=""):
    """Who is known."""
    return make_roster(parse_node_text(NODE + text, Path("n1.yaml")), said(manifests))


@given(st.lists(st.text(max_size=5), max_size=30), st.sets(st.integers(256, 65535), max_size=5))
def test_numbers_depend_on_nothing_but_the_labels(texts, taken):
    """In any order, with or without others: distinct, in range, never a taken one."""
    numbers = allocate(texts, taken)
    assert numbers == allocate(reversed(texts), taken)
    assert len(set(numbers.values())) == len(set(texts))
    assert all(ALLOCATED_FIRST <= one <= ALLOCATED_LAST for one in numbers.values())
    assert not taken & set(numbers.values())


def test_a_collision_moves_the_later_one_to_the_next_number():
    """Two sets of one hash: the first in order keeps its number."""
    alone = allocate(["a"], ())["a"]
    assert allocate(["a"], {alone})["a"] == alone + 1


def test_a_full_space_is_an_error():
    """Every number taken."""
    with pytest.raises(ManifestError, match="more than 65280 label sets"):
        allocate(["a"], range(256, 65536))


def test_same_labels_same_number():
    """On this node or another, written in the node file or in a manifest."""
    here = roster("endpoints: [{name: default/a, id: 1, ip: 10.0.0.9, labels: {app: x}}]\n")
    there = roster(manifests=pod("b", labels="app: x", spec="nodeName: n2"))
    other = roster(manifests=pod("b", labels="app: y"))
    assert here.members["default/a"].identity == there.members["default/b"].identity
    assert other.members["default/b"].identity != there.members["default/b"].identity


def test_written_numbers_win():
    """An endpoint's identity, and that of a raw row which is or names a pod."""
    text = "endpoints: [{name: default/a, id: 1, ip: 10.0.0.9, identity: 777}]\n"
    found = roster(text, pod("a", labels="app: x") + pod("b", labels="app: x"))
    assert [one.identity for one in found.members.values()] == [777, 777]
    text = "ipcache: [{prefix: 10.0.2.9/32, identity: 888, tunnel_endpoint: 192.0.2.2}]\n"
    found = roster(text, pod("b", ip="10.0.2.9", spec="nodeName: n2"))
    assert found.members["default/b"].identity == 888
    text = "ipcache: [{prefix: 10.0.2.9/32, identity: 999, pod: default/b}]\n"
    found = roster(text, pod("b"))
    assert found.members["default/b"].identity == 999
    assert [str(ip) for ip in found.members["default/b"].addresses] == ["10.0.2.9"]


def test_a_raw_row_of_an_endpoint_here_is_its_number():
    """Else it would be sent under one number and policed under another."""
    text = "endpoints: [{name: default/a, id: 1, ip: 10.0.0.9, labels: {app: x}}]\n"
    text += "ipcache: [{prefix: 10.0.0.9/32, identity: 555}]\n"
    assert roster(text).members["default/a"].identity == 555


def test_a_plain_peer_s_identity_is_nobody_else_s():
    """A label set whose hash is that number takes the next one."""
    number = roster(manifests=pod("b", labels="app: x")).members["default/b"].identity
    text = NODE.replace("}]", f", vni: 9, identity: {number}}}]")
    found = make_roster(parse_node_text(text, Path("n1.yaml")), said(pod("b", labels="app: x")))
    assert found.members["default/b"].identity == number + 1


def test_endpoint_without_labels_waits_as_init():
    """Until a manifest says who it is."""
    text = "endpoints: [{name: default/a, id: 1, ip: 10.0.0.9}]\n"
    assert roster(text).members["default/a"].identity == 5
    assert roster(text).labels == {}
    assert roster(text, pod("a")).members["default/a"].identity >= 256


def test_namespace_labels_are_seen_but_make_no_identity():
    """A relabelled namespace does not renumber its pods."""
    space = "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {team: x}}}\n---\n"
    plain, labelled = roster(manifests=pod("a")), roster(manifests=space + pod("a"))
    key = "io.cilium.k8s.namespace.labels.team"
    assert labelled.members["default/a"].labels[key] == "x"
    assert key not in plain.members["default/a"].labels
    assert labelled.members["default/a"].identity == plain.members["default/a"].identity


def test_contradicting_labels_are_refused():
    """The node file and the manifest may not differ."""
    text = "endpoints: [{name: default/a, id: 1, ip: 10.0.0.9, labels: {app: x}}]\n"
    with pytest.raises(ManifestError, match=r"n1.yaml:3: endpoint default/a: other labels than "
                                            r"Pod default/a in m.yaml:1"):  # fmt: skip
        roster(text, pod("a", labels="app: y"))
    assert roster(text, pod("a", labels="app: x")).members


def test_one_number_for_two_label_sets_is_refused_with_policies():
    """Policies could not tell the pods apart; without policies it does no harm."""
    text = "endpoints:\n" + "".join(
        f"  - {{name: default/{name}, id: {n}, ip: 10.0.0.{n}, identity: 777, "
        f"labels: {{a: {name}}}}}\n"
        for n, name in ((2, "x"), (3, "y"))
    )
    assert roster(text).members
    policy = ("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
              "spec: {podSelector: {}}\n")  # fmt: skip
    with pytest.raises(ManifestError, match=r"n1\.yaml:5: default/y has identity 777 as another"):
        roster(text, policy)
