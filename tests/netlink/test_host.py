"""cilium_host in a namespace of its own: its shape, and the ways from one shape to the next."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from fwd.netlink.errors import LinkError
from fwd.netlink.host import HOST_DEVICE, HostShape, check_free, shape_host
from fwd.netlink.shim import in_namespace
from fwd.netlink.tap import open_tap
from tests.netlink.namespaces import in_netns, ip_json, namespace

pytestmark = pytest.mark.netns

LOCAL, REMOTE, LOCAL6 = map(ip_network, ("10.244.0.0/24", "10.244.2.0/24", "fd00::/64"))
ROUTER, ROUTER6 = ip_address("10.244.0.150"), ip_address("fd00::150")
SHAPE = HostShape(bytes.fromhex("020000000001"), (ROUTER,), frozenset({LOCAL, REMOTE}), 1450)


def inside(name, function):
    """Call a function in a thread that has entered a namespace."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        return in_namespace(fd, function)
    finally:
        os.close(fd)


def reshape(name, old, new, *, undo=False):
    """``shape_host`` in a namespace."""
    inside(name, lambda: asyncio.run(shape_host(old, new, undo=undo)))


def routes(name):
    """Destination to source address of the device's routes, both families."""
    rows = [
        row for family in ("-4", "-6") for row in ip_json(name, family, "route", "show")
        if row.get("dev") == HOST_DEVICE and not row["dst"].startswith(("fe80", "ff"))
    ]  # fmt: skip
    return {row["dst"]: row.get("prefsrc") for row in rows}


@pytest.fixture
def host():
    """A namespace with a TAP called cilium_host, down and bare."""
    with namespace() as name:
        tap = inside(name, lambda: open_tap(HOST_DEVICE))
        yield name
        tap.close()
        assert HOST_DEVICE not in {row["ifname"] for row in ip_json(name, "link", "show")}


def test_routes_of_a_shape_have_a_source_of_their_family():
    """A network whose family has no router gets no route."""
    both = replace(SHAPE, addresses=(ROUTER, ROUTER6), networks=frozenset({LOCAL, LOCAL6}))
    assert both.routes == {(LOCAL, ROUTER), (LOCAL6, ROUTER6)}
    assert replace(both, addresses=(ROUTER6,)).routes == {(LOCAL6, ROUTER6)}


def test_a_fresh_device_gets_its_whole_shape(host):
    """MAC, MTU, no ARP, /32, routes with the router as source, and no IPv6 of its own."""
    reshape(host, None, SHAPE)
    (link,) = ip_json(host, "addr", "show", "dev", HOST_DEVICE)
    assert (link["address"], link["mtu"]) == ("02:00:00:00:00:01", 1450)
    assert {"UP", "NOARP"} <= set(link["flags"])
    assert [(a["local"], a["prefixlen"]) for a in link["addr_info"]] == [(str(ROUTER), 32)]
    assert routes(host) == {str(LOCAL): str(ROUTER), str(REMOTE): str(ROUTER)}


def test_both_families(host):
    """An IPv6 router brings /128 and routes."""
    shape = replace(SHAPE, addresses=(ROUTER, ROUTER6), networks=frozenset({LOCAL, LOCAL6}))
    reshape(host, None, shape)
    (link,) = ip_json(host, "addr", "show", "dev", HOST_DEVICE)
    addresses = {(a["local"], a["prefixlen"]) for a in link["addr_info"]}
    assert addresses == {(str(ROUTER), 32), (str(ROUTER6), 128)}, "and no link-local one"
    assert routes(host).keys() >= {str(LOCAL), str(LOCAL6)}


def test_a_change_removes_and_adds_and_can_be_undone(host):
    """Another router, MAC and set of networks, and the way back."""
    new = HostShape(
        bytes.fromhex("020000000002"), (ip_address("10.244.0.151"),),
        frozenset({LOCAL, ip_network("10.244.3.0/24")}), 1400,
    )  # fmt: skip
    reshape(host, None, SHAPE)
    for old, to, undo in ((SHAPE, new, False), (new, SHAPE, True)):
        reshape(host, old, to, undo=undo)
        (link,) = ip_json(host, "addr", "show", "dev", HOST_DEVICE)
        assert link["address"] == to.mac.hex(":")
        assert [a["local"] for a in link["addr_info"]] == [str(to.addresses[0])]
        assert routes(host) == {str(one): str(to.addresses[0]) for one in to.networks}


def test_a_route_that_somebody_has_is_refused_by_name(host):
    """The text says which; undoing the half-made change leaves the old shape."""
    reshape(host, None, SHAPE)
    in_netns(host, "ip", "route", "add", "unreachable", "10.244.9.0/24")
    new = replace(SHAPE, networks=frozenset({LOCAL, ip_network("10.244.9.0/24")}))
    with pytest.raises(LinkError, match=r"adding the route to 10\.244\.9\.0/24, see .*File exists"):
        reshape(host, SHAPE, new)
    reshape(host, new, SHAPE, undo=True)
    assert routes(host) == {str(LOCAL): str(ROUTER), str(REMOTE): str(ROUTER)}


def test_a_taken_name_is_refused_with_its_owner(host):
    """Ours is named by process; somebody's veth by what to do."""
    with pytest.raises(LinkError, match=rf"owned by .*\(pid {os.getpid()}\): stop it first"):
        inside(host, lambda: asyncio.run(check_free(HOST_DEVICE)))
    with namespace() as other:
        inside(other, lambda: asyncio.run(check_free(HOST_DEVICE)))
        in_netns(other, "ip", "link", "add", HOST_DEVICE, "type", "veth", "peer", "name", "x")
        with pytest.raises(LinkError, match="ip link del cilium_host"):
            inside(other, lambda: asyncio.run(check_free(HOST_DEVICE)))
