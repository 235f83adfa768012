"""The node file's sections: ranges, derived values, closed sets of keys."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fwd.config import schema
from fwd.config.schema import EndpointSection, NodeFile, PeerSection, PolicySection, Section

SECTIONS = [
    value
    for value in vars(schema).values()
    if isinstance(value, type) and issubclass(value, Section)
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_sections_refuse_unknown_keys(section):
    """No section takes a key it does not know, not even the loader's own words."""
    for key in ("surprise", "line"):
        with pytest.raises(ValidationError, match="unknown key"):
            section.model_validate({key: 1})


def test_endpoint_derives_what_is_left_out():
    """MACs and device name come from the endpoint's name: stable, different, valid."""
    rows = [
        EndpointSection.model_validate({"name": name, "id": 1, "identity": 9, "ip": "10.0.0.9"})
        for name in ("a", "a", "b")
    ]
    assert rows[0] == rows[1]
    assert rows[0].mac != rows[0].node_mac
    assert rows[0].mac != rows[2].mac
    assert len({row.ifname for row in rows}) == 2
    assert all(len(row.ifname) <= 15 and row.mac[0] & 3 == 2 for row in rows)


@pytest.mark.parametrize(("key", "value"), [("id", 0), ("id", 65536), ("identity", 0),
                                            ("identity", 1 << 24), ("ifindex", 0)])  # fmt: skip
def test_endpoint_numbers_have_limits(key, value):
    """Ids fit 16 bits, identities the VNI, and none is zero."""
    row = {"name": "a", "id": 1, "identity": 9, "ip": "10.0.0.9"}
    with pytest.raises(ValidationError, match=key):
        EndpointSection.model_validate(row | {key: value})


@pytest.mark.parametrize("value", [True, "1", 1.0])
def test_numbers_are_not_guessed(value):
    """A boolean, a text and a fraction are no id."""
    row = {"name": "a", "identity": 9, "ip": "10.0.0.9", "id": value}
    with pytest.raises(ValidationError, match="id"):
        EndpointSection.model_validate(row)


def test_one_or_many_where_the_contract_says_so():
    """Addresses and prefixes may be one text or a list."""
    one = PeerSection.model_validate({"name": "p", "ip": "192.0.2.1", "pod_cidr": "10.0.0.0/24"})
    many = PeerSection.model_validate({"name": "p", "ip": "192.0.2.1", "pod_cidr": ["10.0.0.0/24"]})
    assert one == many


def test_policy_rule_defaults_to_any():
    """A rule that names no identity, protocol or port means all of them."""
    rule = PolicySection.model_validate({"endpoint": "a", "direction": "egress", "action": "deny"})
    assert (rule.identity, rule.proto, rule.port) == ("any", "any", None)


def test_node_file_is_frozen():
    """A loaded file cannot be changed by accident: reload compares old and new."""
    node = NodeFile.model_validate({"node": {"name": "n", "ip": "192.0.2.1"}})
    with pytest.raises(ValidationError, match="frozen"):
        node.node.name = "other"
