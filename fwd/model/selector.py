"""Labels and label selectors as values, and an index that answers a selector without a scan.

Pure. A selector is the conjunction of its requirements (labels.io grammar: In, NotIn, Exists,
DoesNotExist); NotIn and DoesNotExist hold for whoever lacks the key, as in Kubernetes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, Generic, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "CLUSTER_LABEL",
    "METADATA_NAME",
    "NAMESPACE_LABEL",
    "NAMESPACE_PREFIX",
    "SERVICE_ACCOUNT_LABEL",
    "LabelIndex",
    "Operator",
    "Requirement",
    "Selector",
    "canonical",
    "identity_labels",
]

NAMESPACE_LABEL: Final = "io.kubernetes.pod.namespace"
CLUSTER_LABEL: Final = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT_LABEL: Final = "io.cilium.k8s.policy.serviceaccount"
NAMESPACE_PREFIX: Final = "io.cilium.k8s.namespace.labels."
"""A pod also carries its namespace's labels, with this in front of each key."""
METADATA_NAME: Final = "kubernetes.io/metadata.name"
"""The label every namespace has: its name."""

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]
_Item = TypeVar("_Item")


def identity_labels(
    namespace: str, labels: Mapping[str, str], service_account: str = "default"
) -> dict[str, str]:
    """Return the labels that make a pod's identity; Cilium's own keys cannot be overwritten."""
    return dict(labels) | {
        NAMESPACE_LABEL: namespace,
        CLUSTER_LABEL: "default",
        SERVICE_ACCOUNT_LABEL: service_account,
    }


def canonical(labels: Mapping[str, str]) -> str:
    """Return ``k8s:key=value;`` of every label, by key (datapath reference 9.4)."""
    return "".join(f"k8s:{key}={labels[key]};" for key in sorted(labels))


class Requirement(NamedTuple):
    """One condition on one label."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Tell whether ``labels`` meet it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
        return self.key not in labels


class Selector(NamedTuple):
    """All requirements must hold; none = everybody."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether ``labels`` are selected."""
        return all(requirement.holds(labels) for requirement in self.requirements)

    def and_(self, *more: Requirement) -> Selector:
        """Return the selector with more requirements."""
        return Selector((*self.requirements, *more))


class LabelIndex(Generic[_Item]):
    """Items by their labels; each distinct selector is answered once."""

    def __init__(self, items: Iterable[tuple[_Item, Mapping[str, str]]]) -> None:
        self._all: set[_Item] = set()
        self._by_key: dict[str, set[_Item]] = defaultdict(set)
        self._by_label: dict[tuple[str, str], set[_Item]] = defaultdict(set)
        self._answers: dict[Selector, frozenset[_Item]] = {}
        for item, labels in items:
            self._all.add(item)
            for key, value in labels.items():
                self._by_key[key].add(item)
                self._by_label[key, value].add(item)

    def select(self, selector: Selector) -> frozenset[_Item]:
        """Return the items whose labels ``selector`` matches."""
        answer = self._answers.get(selector)
        if answer is None:
            answer = self._answers[selector] = self._find(selector)
        return answer

    def _find(self, selector: Selector) -> frozenset[_Item]:
        wanted = [
            self._having(one) for one in selector.requirements if one.operator in ("In", "Exists")
        ]
        found = min(wanted, key=len, default=self._all).copy()
        for some in wanted:
            found &= some
        for one in selector.requirements:
            if one.operator in ("NotIn", "DoesNotExist"):
                found -= self._having(one)
        return frozenset(found)

    def _having(self, one: Requirement) -> set[_Item]:
        """Return who has the requirement's key, with one of its values where it names some."""
        if one.operator in ("Exists", "DoesNotExist"):
            return self._by_key.get(one.key, set())
        found = [self._by_label.get((one.key, value), set()) for value in one.values]
        return found[0] if len(found) == 1 else set().union(*found)
