"""Single values of the node file."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.config import values
from fwd.model.policy import PortRange


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_port_ranges_are_read_forwards_only(first, last):
    """A range is read when it runs forwards and refused with the right one otherwise."""
    text = f"{first}-{last}"
    if first <= last:
        assert values.port_range(text) == PortRange(first, last)
    else:
        with pytest.raises(ValueError, match=f"write {last}-{first}"):
            values.port_range(text)


@pytest.mark.parametrize("value", ["", "80-", "-80", "http", 65536, "1-65536", -1, True, [80], 8.5])
def test_wrong_ports_are_refused(value):
    """What is no port or range, and what lies beyond 65535, is refused."""
    with pytest.raises(ValueError, match=r"not a port|out of range"):
        values.port_range(value)


def test_any_port_is_none():
    """`any` means no port at all; a number means just that one."""
    assert values.port_range("any") is None
    assert values.port_range(80) == PortRange(80, 80)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (values.policy_identity, 0),
        (values.policy_identity, "all"),
        (values.policy_identity, True),
        (values.mtu, 575),
        (values.mtu, True),
        (values.mtu, "big"),
        (values.listen, "127.0.0.1"),
        (values.listen, "localhost:9962"),
        (values.listen, "127.0.0.1:0"),
        (values.ifname, "a" * 16),
        (values.ifname, "a/b"),
        (values.name, "../x y"),
        (values.name, 7),
        (values.underlay, "0.0.0.0"),
        (values.underlay, "224.0.0.1"),
        (values.underlay, "fd00::1"),
        (values.outside6, "192.0.2.1"),
        (values.outside6, "fe80::1"),
        (values.outside6, "ff02::1"),
        (values.outside6, "::"),
        (values.addresses, []),
        (values.labels, ["app"]),
        (values.labels, {"app": 1}),
        (values.manifests, [80]),
    ],
)
def test_wrong_values_say_what_to_write(read, value):
    """Each refusal has two halves: what is wrong, what to do."""
    with pytest.raises(ValueError, match=r"[,:] ") as caught:
        read(value)
    assert "\n" not in str(caught.value)


def test_right_values_pass():
    """The shapes of the contract's example are read."""
    assert values.listen("[::1]:9962") == "[::1]:9962"
    assert values.mtu("auto") == "auto"
    assert values.mtu(1450) == 1450
    assert values.name("default/curl") == "default/curl"
    assert values.policy_identity("any") == "any"
    assert values.underlay("192.0.2.1") == IPv4Address("192.0.2.1")
    assert values.outside6("2001:db8::1") == IPv6Address("2001:db8::1")
    assert values.labels({"app": "curl", values.LINE_KEY: 3}) == {"app": "curl"}
    assert values.manifests([]) == ()
    assert values.manifests("pods") == ("pods",)
