"""Links, addresses and routes: a TAP becomes a pod's eth0; what the underlay looks like.

All requests go through a netlink socket opened inside the namespace they speak to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_interface
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError

from fwd.netlink.door import POD_DEVICE, SILENCE_IPV6, TAME_IPV6, open_pod_route, run_errand
from fwd.netlink.errors import LinkError
from fwd.netlink.shim import open_route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwd.model.rows import Address
    from fwd.netlink.shim import LoopIPRoute

__all__ = [
    "POD_DEVICE",
    "Device",
    "PodLink",
    "check_pod_namespace",
    "device_of",
    "gso_max_size",
    "plug",
    "vxlan_owner",
]

_TX_QUEUE_LEN = 4096
"""Frames the pod may be ahead of the pump: 6 MB of 1.5 KB frames, one TCP window."""
_DATAGRAM_MAX = 65507
"""Payload of the largest UDP datagram over IPv4, bytes."""
_TUNNEL_HEADERS = 8 + 14
_ETH_HEADER = 14
_GSO_MAX_SIZE = 65536
"""The kernel's own limit without BIG TCP."""
_IP_TCP_HEADERS = 20 + 20
_SCOPE_LINK = 253
_IFA_F_NODAD = 0x02
_IFF_UP = 0x1


@dataclass(frozen=True, slots=True)
class PodLink:
    """What a pod's device is to look like."""

    pod: str
    """Endpoint name, for error texts."""
    mac: bytes
    addresses: tuple[Address, ...]
    routers: tuple[Address, ...]
    """Gateways; each serves the pod's addresses of its family."""
    mtu: int
    """Bytes of an IP datagram."""


@dataclass(frozen=True, slots=True)
class Device:
    """The device that carries an address of this host."""

    name: str
    ifindex: int
    mtu: int
    mac: bytes


def gso_max_size(mtu: int) -> int:
    """Return how large the super-packets of a TAP may be, bytes, so that one send carries each.

    Split, every packet gets its headers back: together they must stay below one UDP datagram's
    payload (performance reference A.1).
    """
    segments = max(_DATAGRAM_MAX // (mtu + _TUNNEL_HEADERS), 1)
    size = segments * (mtu - _IP_TCP_HEADERS) + _ETH_HEADER + _IP_TCP_HEADERS
    return min(size, _GSO_MAX_SIZE)


async def check_pod_namespace(netns_fd: int, pod: str, namespace: str) -> None:
    """Prove that a pod's namespace can be entered and has no eth0 yet.

    Raises:
        LinkError: it has one, or may not be entered.
    """
    try:
        route = open_pod_route(netns_fd)
    except OSError as error:
        raise LinkError(
            f"endpoint {pod}: entering namespace {namespace}: {error.strerror}; run as root, or "
            "with fwd-door.socket"
        ) from None
    async with route as ipr:
        if await ipr.link_lookup(ifname=POD_DEVICE):
            raise LinkError(
                f"endpoint {pod}: namespace {namespace} has an {POD_DEVICE} already: "
                f"stop the daemon that serves it or `ip -n {namespace} link del {POD_DEVICE}`"
            )


async def plug(tap_name: str, netns_fd: int, link: PodLink) -> int:
    """Move a TAP into a pod's namespace as eth0, address it and bring it up.

    Args:
        tap_name: the TAP's name in the daemon's namespace.
        netns_fd: descriptor of the pod's namespace.
        link: addresses are set as /32 and /128; all traffic leads through the routers.

    Returns:
        The device's ifindex inside the pod's namespace.

    Raises:
        LinkError: the kernel refused a step; the text names it. Closing the TAP undoes the rest.
    """
    # The kernel answers only after it has waited for its readers, 20 ms a device: packets must not
    # wait with us, so a thread with a loop of its own does it.
    return await asyncio.to_thread(lambda: asyncio.run(_plug(tap_name, netns_fd, link)))


async def device_of(address: Address) -> Device | None:
    """Find the device of the daemon's namespace that carries an address; None when none does."""
    async with open_route() as ipr:
        index = 0
        async for entry in await ipr.addr("dump"):
            text = entry.get("local") or entry.get("address")
            if text is not None and _carries(f"{text}/{entry['prefixlen']}", address):
                index = entry["index"]
        if index == 0:
            return None
        (device,) = await ipr.link("get", index=index)
        mac = bytes.fromhex(str(device.get("address") or "").replace(":", ""))
        return Device(device.get("ifname"), index, device.get("mtu"), mac)


async def vxlan_owner(port: int) -> str | None:
    """Name the kernel VXLAN device that has a UDP port in the daemon's namespace, or None."""
    async with open_route() as ipr:
        async for device in await ipr.link("dump", kind="vxlan"):
            if device.get(("linkinfo", "data", "vxlan_port")) == port:
                return str(device.get("ifname"))
    return None


async def _plug(tap_name: str, netns_fd: int, link: PodLink) -> int:
    step = f"finding TAP {tap_name}"
    try:
        async with open_route() as host, open_pod_route(netns_fd) as pod:
            (index,) = await host.link_lookup(ifname=tap_name)
            step = f"moving TAP {tap_name} into the pod's namespace"
            await host.link("set", index=index, net_ns_fd=netns_fd)
            (index,) = await pod.link_lookup(ifname=tap_name)
            step = f"naming the device {POD_DEVICE}, with its MAC and MTU {link.mtu}"
            await pod.link(
                "set",
                index=index,
                ifname=POD_DEVICE,
                address=link.mac.hex(":"),
                mtu=link.mtu,
                txqlen=_TX_QUEUE_LEN,
                gso_max_size=gso_max_size(link.mtu),
            )
            with contextlib.suppress(OSError):  # no IPv6 in this kernel, or /proc/sys is read-only
                run_errand(netns_fd, TAME_IPV6 if _has_ipv6(link.addresses) else SILENCE_IPV6)
            step = f"adding the addresses {', '.join(map(str, link.addresses))}"
            await _address(pod, index, link.addresses)
            step = f"routing through {', '.join(map(str, link.routers))}"
            await _route(pod, index, link)
    except (NetlinkError, OSError, ValueError) as error:
        raise LinkError(f"endpoint {link.pod}: {step}: {_reason(error)}") from error
    return int(index)


async def _address(pod: LoopIPRoute, index: int, addresses: Sequence[Address]) -> None:
    for address in addresses:
        extra: dict[str, Any] = {}
        if address.version == 6:
            extra["flags"] = _IFA_F_NODAD  # nobody else is on this link
        await pod.addr(
            "add", index=index, address=str(address), prefixlen=address.max_prefixlen, **extra
        )
    for loopback in await pod.link_lookup(ifname="lo"):
        await pod.link("set", index=loopback, state="up")
    await pod.link("set", index=index, state="up")


async def _route(pod: LoopIPRoute, index: int, link: PodLink) -> None:
    families = {address.version for address in link.addresses}
    for router in link.routers:
        if router.version not in families:
            continue
        family = socket.AF_INET if router.version == 4 else socket.AF_INET6
        on_link: dict[str, Any] = {"scope": _SCOPE_LINK} if router.version == 4 else {}
        await pod.route(
            "add", family=family, dst=f"{router}/{router.max_prefixlen}", oif=index, **on_link
        )
        await pod.route("add", family=family, dst="default", gateway=str(router), oif=index)


def _carries(interface: str, address: Address) -> bool:
    own = ip_interface(interface)
    if own.is_loopback:  # lo has every address of its prefix
        return address in own.network
    return own.ip == address


def _has_ipv6(addresses: Sequence[Address]) -> bool:
    return any(isinstance(address, IPv6Address) for address in addresses)


def _reason(error: Exception) -> str:
    if isinstance(error, NetlinkError):
        return os.strerror(error.code)
    return str(error)
