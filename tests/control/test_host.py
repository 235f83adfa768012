"""The node's own device, in a namespace of its own and with a pump that only writes down."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from fwd.config.load import ConfigError, parse_node_text
from fwd.control.compile import compile_world, router_mac
from fwd.control.host import HostDevice, own_devices, plan_host
from fwd.datapath.packet import PORT_HOST
from fwd.netlink.host import HOST_DEVICE
from fwd.netlink.shim import in_namespace
from tests.control.test_endpoints import Ports
from tests.netlink.namespaces import in_netns, ip_json, namespace, open_descriptors

IP_FORWARD = ("cat", "/proc/sys/net/ipv4/ip_forward")


def node(*lines: str, peer: str = "10.0.2.0/24", router: str = "10.0.1.1", ip6: str = ""):
    """A node with one peer."""
    more = f", ip6: '{ip6}'" if ip6 else ""
    text = (
        f"node: {{name: n, ip: 192.0.2.1, pod_cidr: [10.0.1.0/24, 'fd00:1::/64'], "
        f"{router and f'router_ip: {router}'}{more}}}\n"
        f"peers:\n  - {{name: p, ip: 192.0.2.2, pod_cidr: {peer}, router_ip: 10.0.2.1}}\n"
    )
    return parse_node_text(text + "".join(f"{line}\n" for line in lines), Path("n.yaml"))


def names(*networks: str):
    """Networks of text."""
    return frozenset(map(ip_network, networks))


def test_plan_of_a_tunnel_leads_to_all_pods_and_opens_nothing():
    """Own and remote CIDRs over the device; no forwarding and no masquerading unless asked for."""
    plan = plan_host(node(), 1450)
    assert plan.shape.networks == names("10.0.1.0/24", "fd00:1::/64", "10.0.2.0/24")
    assert (plan.shape.mtu, plan.shape.mac) == (1450, router_mac(node()))
    assert (plan.forward, plan.sources) == (frozenset(), frozenset())


def test_plan_of_a_masquerading_node_spares_the_pods():
    """Pods are hidden from everybody but pods: IPv4 ones, with ``node.ip6`` the others, too."""
    both = plan_host(node("features: {masquerade: true}", ip6="2001:db8::1"), 1450)
    assert (both.forward, both.sources) == ({4, 6}, names("10.0.1.0/24", "fd00:1::/64"))
    plan = plan_host(node("features: {masquerade: true}"), 1450)
    assert (plan.forward, plan.sources) == ({4}, names("10.0.1.0/24"))
    assert plan.exempt == names("10.0.1.0/24", "fd00:1::/64", "10.0.2.0/24")


def service(frontend: str) -> str:
    """A row of ``services``."""
    return f"  - {{name: s, frontend: '{frontend}', port: 80, backends: []}}"


def test_plan_leads_to_services_that_have_no_way_yet():
    """An address each, and the one that a node's own backends answer; not nodes', not pods'."""
    taken = ("192.0.2.1", "192.0.2.2", "10.0.2.1", "10.0.2.77", "10.0.1.77")
    plan = plan_host(node("services:", *map(service, taken)), 1450)
    pods = names("10.0.1.0/24", "fd00:1::/64", "10.0.2.0/24")
    assert plan.shape.networks == pods
    plan = plan_host(node("services:", service("10.96.0.10"), service(taken[0])), 1450)
    assert plan.shape.networks == pods | names("10.96.0.10/32", "169.254.42.1/32")
    plan = plan_host(node("services:", service("fd00:96::10")), 1450)
    assert plan.shape.networks == pods | names("fd00:96::10/128", "fda9:fe2a:100::1/128")


def test_plan_with_native_routing_leaves_remote_pods_to_the_host():
    """It forwards, its device leads to its own pods only, and other nodes see pods."""
    plan = plan_host(node("tunnel: {protocol: disabled}", "features: {masquerade: true}"), 1500)
    assert plan.shape.networks == names("10.0.1.0/24", "fd00:1::/64")
    assert plan.forward == {4}
    assert ip_address("192.0.2.2") in plan.exempt


def test_a_peers_router_is_a_remote_node_behind_its_tunnel():
    """So that what the peer's host sends is believed, and answered through the tunnel."""
    rows = {str(row.prefix): row for row in compile_world(node()).ipcache}
    row = rows["10.0.2.1/32"]
    assert (row.identity, str(row.tunnel_endpoint)) == (6, "192.0.2.2")


def within(main):
    """Run a coroutine function in a fresh namespace, given its name; nothing may stay open."""
    with namespace() as name:
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        before = open_descriptors()
        try:
            in_namespace(fd, lambda: asyncio.run(main(name)))
            assert open_descriptors() == before
            assert {row["ifname"] for row in ip_json(name, "link", "show")} == {"lo"}
            assert in_netns(name, *IP_FORWARD).stdout.strip() == "0"
            assert in_netns(name, "nft", "list", "ruleset").stdout == ""
        finally:
            os.close(fd)


def ours(name: str) -> set[str]:
    """Destinations of the device's IPv4 routes."""
    return {row["dst"] for row in ip_json(name, "route", "show") if row.get("dev") == HOST_DEVICE}


@pytest.mark.netns
def test_device_is_watched_after_commit_and_gone_after_close():
    """First prepare makes, then commit lets packets through, close leaves nothing."""

    async def main(name):
        ports = Ports()
        host = HostDevice(ports, 1450)
        await host.prepare(node("features: {masquerade: true}"))
        assert (ports.watched, ours(name)) == (set(), {"10.0.1.0/24", "10.0.2.0/24"})
        assert in_netns(name, *IP_FORWARD).stdout.strip() == "1"
        host.commit()
        assert ports.watched == {PORT_HOST}
        await host.prepare(node())  # masquerading is turned off by a reload
        host.commit()
        assert in_netns(name, "nft", "list", "ruleset").stdout == ""
        assert in_netns(name, *IP_FORWARD).stdout.strip() == "0"
        await host.prepare(node("features: {masquerade: true}"))
        host.commit()
        await host.close()
        assert ports.watched == set()

    within(main)


@pytest.mark.netns
def test_a_first_start_that_fails_leaves_nothing():
    """The route is somebody's: file and line, and no device, table or switch."""

    async def main(name):
        in_netns(name, "ip", "route", "add", "unreachable", "10.0.2.0/24")
        host = HostDevice(Ports(), 1450)
        with pytest.raises(ConfigError, match=r"n\.yaml:1: cilium_host: adding the route to 10"):
            await host.prepare(node("features: {masquerade: true}"))
        await host.close()

    within(main)


@pytest.mark.netns
def test_a_refused_reload_and_a_rollback_keep_the_old_shape():
    """Whether the kernel refuses it or the tables do."""

    async def main(name):
        host = HostDevice(Ports(), 1450)
        await host.prepare(node())
        host.commit()
        in_netns(name, "ip", "route", "add", "unreachable", "10.0.9.0/24")
        with pytest.raises(ConfigError, match="see `ip route show"):
            await host.prepare(node("features: {masquerade: true}", peer="10.0.9.0/24"))
        assert ours(name) == {"10.0.1.0/24", "10.0.2.0/24"}
        await host.prepare(node("features: {masquerade: true}", peer="10.0.3.0/24"))
        assert ours(name) == {"10.0.1.0/24", "10.0.3.0/24"}
        await host.rollback()
        assert ours(name) == {"10.0.1.0/24", "10.0.2.0/24"}
        assert in_netns(name, "nft", "list", "ruleset").stdout == ""
        await host.rollback()  # nothing left to undo
        await host.close()

    within(main)


@pytest.mark.netns
def test_a_deleted_device_is_made_again_by_the_next_prepare():
    """As a reload does it."""

    async def main(name):
        ports = Ports()
        host = HostDevice(ports, 1450)
        await host.prepare(node())
        host.commit()
        in_netns(name, "ip", "link", "del", HOST_DEVICE)
        assert own_devices(host, None) == {"outside": None, "lost": []}
        host.mark_gone()
        assert own_devices(host, None)["lost"] == [HOST_DEVICE]
        ports.watched.clear()  # the pump has let go of it
        await host.prepare(node())
        assert own_devices(host, None)["lost"] == [HOST_DEVICE], "it may yet be rolled back"
        host.commit()
        assert own_devices(host, None)["lost"] == []
        assert (ports.watched, ours(name)) == ({PORT_HOST}, {"10.0.1.0/24", "10.0.2.0/24"})
        await host.close()

    within(main)


@pytest.mark.netns
def test_without_a_router_address_there_is_no_device():
    """Nothing to carry."""

    async def main(name):
        ports = Ports()
        host = HostDevice(ports, 1450)
        await host.prepare(node("features: {masquerade: true}", router=""))
        host.commit()
        assert (ports.watched, ours(name)) == (set(), set())
        await host.close()

    within(main)
