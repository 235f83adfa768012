"""Label selectors: by the book, by the index, and the canonical text of labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.model.selector import LabelIndex, Requirement, Selector, canonical, identity_labels

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))
REQUIREMENTS = st.one_of(
    st.builds(
        Requirement,
        st.sampled_from("abc"),
        st.sampled_from(["In", "NotIn"]),
        st.lists(st.sampled_from("xyz"), min_size=1, max_size=2).map(tuple),
    ),
    st.builds(Requirement, st.sampled_from("abc"), st.sampled_from(["Exists", "DoesNotExist"])),
)


@given(st.lists(LABELS, max_size=6), st.lists(REQUIREMENTS, max_size=3))
def test_index_answers_as_a_scan_would(labels, requirements):
    """The index selects exactly whom the selector matches, asked once or twice."""
    selector = Selector(tuple(requirements))
    index = LabelIndex(enumerate(labels))
    wanted = {number for number, one in enumerate(labels) if selector.matches(one)}
    assert index.select(selector) == wanted
    assert index.select(selector) == wanted


@pytest.mark.parametrize(
    ("requirement", "with_x", "with_y", "without"),
    [
        (Requirement("a", "In", ("x",)), True, False, False),
        (Requirement("a", "NotIn", ("x",)), False, True, True),
        (Requirement("a", "Exists"), True, True, False),
        (Requirement("a", "DoesNotExist"), False, False, True),
    ],
)
def test_operators(requirement, with_x, with_y, without):
    """NotIn and DoesNotExist hold for whoever lacks the key."""
    assert requirement.holds({"a": "x"}) is with_x
    assert requirement.holds({"a": "y"}) is with_y
    assert requirement.holds({"b": "x"}) is without


def test_canonical_text_is_sorted_and_complete():
    """The text of reference 9.4: source, key, value and a semicolon each, by key."""
    labels = identity_labels("kube-system", {"app": "nginx", "a": ""})
    assert canonical(labels) == (
        "k8s:a=;k8s:app=nginx;k8s:io.cilium.k8s.policy.cluster=default;"
        "k8s:io.cilium.k8s.policy.serviceaccount=default;"
        "k8s:io.kubernetes.pod.namespace=kube-system;"
    )


def test_a_pod_cannot_take_another_namespace():
    """A label of the pod never overwrites what Kubernetes says of it."""
    labels = identity_labels("red", {"io.kubernetes.pod.namespace": "blue"})
    assert labels["io.kubernetes.pod.namespace"] == "red"
