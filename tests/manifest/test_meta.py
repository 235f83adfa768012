"""Metadata, selectors and port ranges, as every kind shares them."""

from __future__ import annotations

import pytest

from fwd.manifest.meta import port_range, read_meta, read_selector
from fwd.manifest.reader import ManifestError, read_documents
from fwd.model.policy import PortRange
from fwd.model.selector import Requirement


def field(text, namespace="default"):
    """The one document of a text."""
    (found,) = read_documents(text, "m.yaml", namespace)
    return found


def meta(metadata, namespace="default", *, namespaced=True):
    """The metadata of a Pod."""
    top = field(f"kind: Pod\nmetadata: {metadata}", namespace)
    return read_meta(top.mapping(("kind", "metadata")), top, namespaced=namespaced)


def test_names_are_full():
    """A namespaced object has its namespace in front, the file's where it names none."""
    assert meta("{name: a}").origin.name == "default/a"
    assert meta("{name: a}", "red").origin.name == "red/a"
    assert meta("{name: a, namespace: blue}", "red").origin.name == "blue/a"
    assert meta("{name: a}", namespaced=False).origin.name == "a"
    assert str(meta("{name: a, uid: x}").origin) == "Pod default/a"


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ("{}", "metadata: name: missing"),
        ("{name: A_b}", "metadata.name: 'A_b' is not a name"),
        ("{name: a, label: {}}", "metadata.label: unknown field, did you mean 'labels'?"),
        ("{name: a, labels: {a: 1}}", "metadata.labels.a: '1' has the wrong type, write text"),
    ],
)
def test_wrong_metadata(metadata, error):
    """The error names the key."""
    with pytest.raises(ManifestError, match=r"m\.yaml:2: ") as caught:
        meta(metadata)
    assert error in str(caught.value)


def test_clusterwide_objects_have_no_namespace():
    """One that is written is a mistake."""
    with pytest.raises(ManifestError, match="a Pod has no namespace, remove it"):
        meta("{name: a, namespace: b}", namespaced=False)


def test_selector_has_all_its_conditions():
    """Labels and expressions together, keys as the caller wants them."""
    text = "matchLabels: {a: x}\nmatchExpressions:\n- {key: b, operator: In, values: [y, z]}"
    assert read_selector(field(text), str.upper).requirements == (
        Requirement("A", "In", ("x",)),
        Requirement("B", "In", ("y", "z")),
    )
    assert read_selector(field("{}")).requirements == ()


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ("{key: a}", "operator: missing"),
        ("{key: a, operator: Inn, values: [x]}", "'Inn' is not known here, did you mean 'In'?"),
        ("{key: a, operator: In}", "values: In needs at least one"),
        ("{key: a, operator: Exists, values: [x]}", "values: Exists takes none"),
    ],
)
def test_wrong_expressions(item, error):
    """An expression that could mean two things is refused."""
    with pytest.raises(ManifestError) as caught:
        read_selector(field(f"matchExpressions: [{item}]"))
    assert "m.yaml:1: matchExpressions[0]" in str(caught.value)
    assert error in str(caught.value)


def test_port_ranges():
    """One port, or up to endPort, which must not be less."""
    assert port_range(80, None) == PortRange(80, 80)
    end = field("e: 90").mapping(("e",))["e"]
    assert port_range(80, end) == PortRange(80, 90)
    with pytest.raises(ManifestError, match="e: 90 is less than port 91"):
        port_range(91, end)
