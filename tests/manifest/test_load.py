"""Files of several objects: kinds, lists, names that collide, the seed's own file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fwd.manifest.load import merge, parse_file
from fwd.manifest.reader import ManifestError
from tests.manifest.objects import error_of, read

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "manifests"


def test_the_seed_s_file():
    """Two pods, each on its node."""
    text = (CONFIGS / "curl_nginx.yaml").read_text()
    found = merge(parse_file(text, "curl_nginx.yaml", "kube-system"))
    assert [(pod.origin.name, pod.node_name, pod.origin.line) for pod in found.pods] == [
        ("kube-system/curl", "node1", 2),
        ("kube-system/nginx", "node2", 15),
    ]


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_examples_are_right(path):
    """Every example of configs/manifests can be read."""
    assert parse_file(path.read_text(), path.name)


def test_lists_are_read_item_by_item():
    """As kubectl prints several objects."""
    found = read("""\
        apiVersion: v1
        kind: List
        metadata: {resourceVersion: ""}
        items:
        - {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}
        - {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {}}
    """)
    assert [(pod.origin.name, pod.origin.line) for pod in found.pods] == [
        ("default/a", 5),
        ("default/b", 6),
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("kind: Pod", "m.yaml:1: apiVersion: missing, a Kubernetes object has"),
        ("apiVersion: v1", "m.yaml:1: kind: missing"),
        (
            "apiVersion: apps/v1\nkind: Deployment",
            "m.yaml:2: kind: 'Deployment' is not implemented",
        ),
        ("apiVersion: v1\nkind: Pood", "did you mean 'Pod'?"),
        (
            "apiVersion: v1beta1\nkind: Pod",
            "m.yaml:1: apiVersion: 'v1beta1' is not implemented for",
        ),
        ("apiVersion: v1\nkind: Pod", "m.yaml:1: metadata: missing"),
        ("- a", "m.yaml:1: a list has the wrong type, write a mapping"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nsepc: {}",
            "m.yaml:4: sepc: unknown field",
        ),
    ],
)
def test_wrong_documents(text, error):
    """What is no object, or none we know."""
    assert error in error_of(text)


def test_names_collide():
    """Kind and full name are an object's own, across files."""
    text = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}"
    one, two = parse_file(text, "1.yaml"), parse_file(f"\n{text}", "2.yaml")
    with pytest.raises(ManifestError) as caught:
        merge([*one, *two])
    assert str(caught.value) == (
        "2.yaml:2: Pod default/a is defined in 1.yaml:1 already, remove or rename one"
    )
    assert len(merge([*one, *parse_file(text, "2.yaml", "red")]).pods) == 2
