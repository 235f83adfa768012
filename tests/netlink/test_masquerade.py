"""Masquerading by the kernel: what nft is told, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import shutil
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from fwd.netlink.errors import LinkError
from fwd.netlink.masquerade import (
    TABLE,
    Forwarding,
    check_nft,
    masquerade,
    ruleset,
    stop_masquerade,
)
from fwd.netlink.shim import in_namespace
from tests.netlink.namespaces import in_netns, namespace

PODS, PEER = ip_network("10.244.0.0/24"), ip_network("10.244.2.0/24")
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def inside(name, function):
    """Call a function in a thread that has entered a namespace."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        return in_namespace(fd, function)
    finally:
        os.close(fd)


def test_ruleset_names_pods_and_what_is_not_the_world():
    """Sorted, IPv4 only; without exempt destinations there is no condition on them."""
    text = ruleset([PODS, ip_network("fd00::/64")], [PEER, ip_address("192.168.56.106"), PODS])
    assert "ip saddr { 10.244.0.0/24 } " in text
    assert "ip daddr != { 10.244.0.0/24, 10.244.2.0/24, 192.168.56.106 } " in text
    assert "fd00" not in text
    assert "daddr" not in ruleset([PODS], [])


def test_missing_nft_is_said_with_what_to_do(monkeypatch):
    """Nothing is tried without it."""
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(LinkError, match="nft is missing: `apt install nftables`"):
        check_nft()


@pytest.mark.netns
def test_the_table_is_replaced_whole_and_removed():
    """A table another daemon left is no trouble, and removing what is not there is none either."""
    with namespace() as name:
        show = ("nft", "list", "ruleset")
        inside(name, lambda: asyncio.run(masquerade([PEER], [])))
        inside(name, lambda: asyncio.run(masquerade([PODS], [PEER])))
        rules = in_netns(name, *show).stdout
        assert rules.count("masquerade\n") == 1
        assert "ip saddr 10.244.0.0/24 ip daddr != 10.244.2.0/24" in rules
        assert TABLE in rules
        for _ in range(2):
            inside(name, lambda: asyncio.run(stop_masquerade()))
            assert in_netns(name, *show).stdout == ""


@pytest.mark.netns
def test_what_nft_refuses_is_one_line_and_changes_nothing():
    """The first line of what nft says, behind what was being done."""
    with namespace() as name:
        with pytest.raises(LinkError, match=f"writing nftables table {TABLE}: nft says: .*rror"):
            inside(name, lambda: asyncio.run(masquerade([], [])))
        assert in_netns(name, "nft", "list", "ruleset").stdout == ""


@pytest.mark.netns
@pytest.mark.parametrize("before", ["0", "1"])
def test_forwarding_is_as_it_was_afterwards(before):
    """What was on stays on, what was off goes off again; once is enough."""

    def read() -> str:
        return IP_FORWARD.read_text().strip()

    def main() -> None:
        IP_FORWARD.write_text(before)
        forwarding = Forwarding()
        forwarding.enable()
        forwarding.enable()
        assert read() == "1"
        forwarding.restore()
        assert read() == before
        forwarding.restore()

    with namespace() as name:
        inside(name, main)
