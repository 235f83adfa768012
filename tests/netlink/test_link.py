"""A TAP becomes a pod's eth0; what is said when it cannot.

fwdt-<pid>-<n>
+--------------------------+
| lo   eth0 10.244.0.108/32|-- TAP -- the test
+--------------------------+
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from fwd.netlink.errors import LinkError
from fwd.netlink.link import PodLink, check_pod_namespace, device_of, plug, vxlan_owner
from fwd.netlink.netns import open_namespace
from fwd.netlink.tap import open_tap
from tests.netlink.namespaces import in_netns, ip_json, namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.netns

MAC = "96:86:44:a6:37:01"
V4 = PodLink(
    pod="default/curl",
    mac=bytes.fromhex(MAC.replace(":", "")),
    addresses=(IPv4Address("10.244.0.108"),),
    routers=(IPv4Address("10.244.0.150"), IPv6Address("fd00::150")),
    mtu=1450,
)
DUAL = PodLink(V4.pod, V4.mac, (*V4.addresses, IPv6Address("fd00::108")), V4.routers, mtu=V4.mtu)


@pytest.fixture
def pod() -> Iterator[tuple[str, int]]:
    """A fresh namespace: name and descriptor."""
    with namespace() as name:
        fd = open_namespace(name)
        yield name, fd
        os.close(fd)


def plugged(fd: int, link: PodLink = V4) -> tuple[object, int]:
    """A TAP that became eth0, and its ifindex."""
    tap = open_tap()
    try:
        return tap, uvloop.run(plug(tap.name, fd, link))
    except BaseException:
        tap.close()
        raise


def test_pod_gets_its_device(pod):
    """Name, MAC, MTU, host address, routes through the router; lo is up; no IPv6 noise."""
    name, fd = pod
    tap, ifindex = plugged(fd)
    eth0 = ip_json(name, "addr", "show", "eth0")[0]
    addresses = [(a["local"], a["prefixlen"]) for a in eth0["addr_info"]]
    routes = {(r["dst"], r.get("gateway"), r["dev"]) for r in ip_json(name, "route")}
    lo = ip_json(name, "link", "show", "lo")[0]
    noise = in_netns(name, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6").stdout.strip()
    tap.close()
    assert (eth0["address"], eth0["mtu"], eth0["ifindex"]) == (MAC, 1450, ifindex)
    assert {"UP", "LOWER_UP"} <= set(eth0["flags"])
    assert eth0["txqlen"] >= 1000
    assert addresses == [("10.244.0.108", 32)]
    assert routes == {
        ("10.244.0.150", None, "eth0"),
        ("default", "10.244.0.150", "eth0"),
    }
    assert "UP" in lo["flags"]
    assert noise in {"1", ""}


def test_pod_with_ipv6_gets_both_families(pod):
    """/128 without duplicate detection, routes of both families, no router heard."""
    name, fd = pod
    tap, _ = plugged(fd, DUAL)
    info = ip_json(name, "-6", "addr", "show", "eth0", "scope", "global")[0]["addr_info"]
    routes = {(r["dst"], r.get("gateway")) for r in ip_json(name, "-6", "route")}
    adverts = in_netns(name, "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").stdout.strip()
    tap.close()
    assert adverts == "0"
    assert [(a["local"], a["prefixlen"]) for a in info if a] == [("fd00::108", 128)]
    assert not any(a.get("tentative") for a in info)
    assert {("fd00::150", None), ("default", "fd00::150")} <= routes


def test_device_vanishes_with_its_descriptor(pod):
    """Closing the TAP takes eth0, its address and its routes along."""
    name, fd = pod
    tap, _ = plugged(fd)
    tap.close()
    assert [row["ifname"] for row in ip_json(name, "link")] == ["lo"]
    assert ip_json(name, "route") == []


def test_namespace_with_an_eth0_is_refused(pod):
    """The check names namespace and device; plugging fails too and leaves the other eth0."""
    name, fd = pod
    tap, _ = plugged(fd)
    with pytest.raises(LinkError, match=rf"default/curl: namespace {name} has an eth0 already"):
        uvloop.run(check_pod_namespace(fd, "default/curl", name))
    with pytest.raises(LinkError, match=r"default/curl: naming the device eth0.*File exists"):
        plugged(fd)
    assert [row["ifname"] for row in ip_json(name, "link")] == ["lo", "eth0"]
    tap.close()
    uvloop.run(check_pod_namespace(fd, "default/curl", name))


def test_refused_step_is_named(pod):
    """An MTU the device cannot have; the text says what was being done."""
    _, fd = pod
    link = PodLink(V4.pod, V4.mac, V4.addresses, V4.routers, mtu=70000)
    with pytest.raises(LinkError, match="MTU 70000: Invalid argument"):
        plugged(fd, link)


def test_plugging_does_not_stop_the_loop(pod):
    """The kernel takes 20 ms a device; packets of other pods must not wait for it."""
    _, fd = pod

    async def main() -> float:
        longest, last, tap = 0.0, time.perf_counter(), open_tap()
        task = asyncio.ensure_future(plug(tap.name, fd, V4))
        while not task.done():
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        tap.close()
        await task
        return longest

    assert min(uvloop.run(main()) for _ in range(3)) < 0.015


def test_underlay_device_is_found_by_its_address(pod):
    """Device, MTU and MAC behind an address; None for an address of nobody."""
    loopback = uvloop.run(device_of(IPv4Address("127.0.0.1")))
    assert (loopback.name, loopback.mtu) == ("lo", int(Path("/sys/class/net/lo/mtu").read_text()))
    assert uvloop.run(device_of(IPv4Address("127.9.9.9"))) == loopback
    assert uvloop.run(device_of(IPv4Address("192.0.2.1"))) is None


def test_vxlan_device_is_found_by_its_port():
    """Only a VXLAN device with that port counts."""
    name = f"fwdtx{os.getpid()}"
    vxlan = ["type", "vxlan", "id", "9", "dstport", "48472"]
    subprocess.run(["ip", "link", "add", name, *vxlan], check=True)
    try:
        assert uvloop.run(vxlan_owner(48472)) == name
        assert uvloop.run(vxlan_owner(48473)) is None
    finally:
        subprocess.run(["ip", "link", "del", name], check=True)
