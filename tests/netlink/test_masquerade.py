"""Masquerading by the kernel: what nft is told, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from fwd.netlink.errors import LinkError
from fwd.netlink.masquerade import (
    TABLE,
    Forwarding,
    masquerade,
    ruleset,
    stop_masquerade,
)
from fwd.netlink.shim import in_namespace
from tests.netlink.namespaces import in_netns, namespace

PODS, PEER = ip_network("10.244.0.0/24"), ip_network("10.244.2.0/24")
PODS6 = ip_network("fd00::/64")
SWITCHES = {
    4: Path("/proc/sys/net/ipv4/ip_forward"),
    6: Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}


def inside(name, function):
    """Call a function in a thread that has entered a namespace."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        return in_namespace(fd, function)
    finally:
        os.close(fd)


def test_ruleset_names_pods_and_what_is_not_the_world():
    """Sorted, a family apart; without exempt destinations there is no condition on them."""
    text = ruleset([PODS, PODS6], [PEER, ip_address("192.168.56.106"), PODS, PODS6])
    assert "    ip saddr { 10.244.0.0/24 } " in text
    assert "ip daddr != { 10.244.0.0/24, 10.244.2.0/24, 192.168.56.106 } " in text
    assert "    ip6 saddr { fd00::/64 } ip6 daddr != { fd00::/64 } oifname" in text
    assert "ip6 saddr" not in ruleset([PODS], [PODS6])
    assert "ip saddr" not in ruleset([PODS6], [PEER])
    assert "daddr" not in ruleset([PODS], [])


def test_a_kernel_without_ipv6_is_not_asked_for_it(monkeypatch, tmp_path):
    """There is no table of that family to remove."""
    assert f"delete table ip6 {TABLE}" in ruleset([PODS], [])
    monkeypatch.setattr("fwd.netlink.masquerade._IPV6", tmp_path / "none")
    assert "ip6" not in ruleset([PODS], [])


@pytest.mark.netns
def test_the_table_is_replaced_whole_and_removed():
    """A table another daemon left is no trouble, and removing what is not there is none either."""
    with namespace() as name:
        show = ("nft", "list", "ruleset")
        inside(name, lambda: asyncio.run(masquerade([PEER], [])))
        inside(name, lambda: asyncio.run(masquerade([PODS6], [])))
        inside(name, lambda: asyncio.run(masquerade([PODS, PODS6], [PEER])))
        rules = in_netns(name, *show).stdout
        assert rules.count("masquerade\n") == 2
        assert "ip6 saddr fd00::/64 oifname" in rules
        inside(name, lambda: asyncio.run(masquerade([PODS], [PEER])))
        rules = in_netns(name, *show).stdout
        assert rules.count("masquerade\n") == 1
        assert "ip saddr 10.244.0.0/24 ip daddr != 10.244.2.0/24" in rules
        assert TABLE in rules
        for _ in range(2):
            inside(name, lambda: asyncio.run(stop_masquerade()))
            assert in_netns(name, *show).stdout == ""


@pytest.mark.netns
def test_what_nft_refuses_is_one_line_and_changes_nothing(monkeypatch):
    """The first line of what nft says, behind what was being done."""
    monkeypatch.setattr("fwd.netlink.masquerade.HOST_DEVICE", "a-name-no-device-can-have")
    with namespace() as name:
        with pytest.raises(LinkError, match=f"writing nftables table {TABLE}: nft says: .*rror"):
            inside(name, lambda: asyncio.run(masquerade([PODS], [])))
        assert in_netns(name, "nft", "list", "ruleset").stdout == ""


@pytest.mark.netns
@pytest.mark.parametrize("before", ["0", "1"])
@pytest.mark.parametrize("version", [4, 6])
def test_forwarding_is_as_it_was_afterwards(version, before):
    """What was on stays on, what was off goes off again; once is enough; one family at a time."""

    def read() -> list[str]:
        return [SWITCHES[one].read_text().strip() for one in (version, 10 - version)]

    def main() -> None:
        SWITCHES[version].write_text(before)
        SWITCHES[10 - version].write_text("0")
        forwarding = Forwarding()
        forwarding.enable({version})
        forwarding.enable({version})
        assert read() == ["1", "0"]
        forwarding.enable({10 - version})
        assert read() == [before, "1"]
        forwarding.restore()
        assert read() == [before, "0"]
        forwarding.restore()

    with namespace() as name:
        inside(name, main)


@pytest.mark.netns
def test_who_listens_to_router_advertisements_goes_on_listening():
    """Routing IPv6 makes the kernel deaf to them unless accept_ra is 2; 0 stays 0."""

    def main() -> None:
        conf = Path("/proc/sys/net/ipv6/conf")
        (conf / "default" / "accept_ra").write_text("0")
        (conf / "lo" / "accept_ra").write_text("1")
        forwarding = Forwarding()
        forwarding.enable({4, 6})
        assert (conf / "lo" / "accept_ra").read_text() == "2\n"
        assert (conf / "default" / "accept_ra").read_text() == "0\n"
        forwarding.restore()
        assert (conf / "lo" / "accept_ra").read_text() == "1\n"

    with namespace() as name:
        inside(name, main)
