"""Identities: reserved names and the limit of the wire."""

from __future__ import annotations

from fwd.model.identity import HOST, REMOTE_NODE, WIRE_MAX, WORLD, identity_name


def test_reserved_identities_have_the_documented_names():
    """Reserved numbers print as names, all others as numbers."""
    names = [identity_name(number) for number in (HOST, WORLD, REMOTE_NODE, 25001)]
    assert names == ["host", "world", "remote-node", "25001"]


def test_wire_limit_is_the_vni():
    """An identity on the wire has 24 bits."""
    assert WIRE_MAX.bit_length() == 24
    assert WIRE_MAX + 1 == 1 << 24
