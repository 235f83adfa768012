"""Addresses, prefixes and MACs: what is read, and what refusals say."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.model.address import (
    derive_mac,
    host_network,
    mac_text,
    parse_address,
    parse_mac,
    parse_network,
)


@given(st.ip_addresses())
def test_addresses_and_their_host_prefixes_round_trip(address):
    """Every address is read back from its text, alone and as its own /32 or /128."""
    assert parse_address(str(address)) == address
    assert parse_network(str(address)) == host_network(address)
    assert host_network(address).num_addresses == 1


def test_prefix_with_host_bits_names_the_prefix_meant():
    """A prefix with bits behind its length is refused with the one to write."""
    with pytest.raises(ValueError, match=r"write 10\.244\.0\.0/24"):
        parse_network("10.244.0.108/24")
    assert parse_network("10.244.0.0/24") == ip_network("10.244.0.0/24")


@pytest.mark.parametrize("value", ["10.0.0", "10.0.0.256", "", 10, None, ["10.0.0.1"]])
def test_wrong_addresses_are_refused_with_an_example(value):
    """What is no address is refused, and the text shows one."""
    with pytest.raises(ValueError, match=r"write it like 10\.244"):
        parse_address(value)
    with pytest.raises(ValueError, match="is not a prefix"):
        parse_network(value)


@given(st.binary(min_size=6, max_size=6).filter(lambda mac: not mac[0] & 1 and any(mac)))
def test_unicast_macs_round_trip(mac):
    """Every unicast MAC is read back from its text, in both notations and cases."""
    assert parse_mac(mac_text(mac)) == mac
    assert parse_mac(mac.hex("-").upper()) == mac


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("01:00:5e:00:00:01", "multicast"),
        ("ff:ff:ff:ff:ff:ff", "multicast"),
        ("00:00:00:00:00:00", "all zeros"),
        ("96:86:44:a6:37", "is not a MAC"),
        ("96:86:44:a6:37:ec:00", "is not a MAC"),
        ("96:86:44:a6:37:1ec", "is not a MAC"),
        ("96:86:44:a6:37:", "is not a MAC"),
        ("96:86:44:a6:37:xx", "is not a MAC"),
        (968644, "is not a MAC"),
    ],
)
def test_wrong_macs_are_refused(value, text):
    """Multicast, zero and malformed MACs are refused, each by its own words."""
    with pytest.raises(ValueError, match=text):
        parse_mac(value)


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_derived_macs_are_stable_local_unicast(names):
    """A derived MAC is locally administered, unicast, and the same every time."""
    mac = derive_mac(*names)
    assert mac[0] & 3 == 2
    assert mac == derive_mac(*names)
    assert parse_mac(mac_text(mac)) == mac


def test_derived_macs_differ_by_name():
    """Joining names differently gives another MAC."""
    assert len({derive_mac("a", "b"), derive_mac("ab"), derive_mac("b", "a")}) == 3
