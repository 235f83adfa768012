"""cilium_host: the node's own TAP, with the router addresses, and the routes to pods over it.

Everything here lives in the daemon's own network namespace and goes with the TAP's descriptor:
addresses and routes need no undoing of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError

from fwd.netlink.door import write_sysctl
from fwd.netlink.errors import LinkError
from fwd.netlink.link import gso_max_size
from fwd.netlink.owner import tap_owner
from fwd.netlink.shim import open_route

if TYPE_CHECKING:
    from fwd.model.rows import Address, Network
    from fwd.netlink.shim import LoopIPRoute

__all__ = ["HOST_DEVICE", "HostShape", "check_free", "shape_host"]

HOST_DEVICE = "cilium_host"
_TX_QUEUE_LEN = 4096
_SCOPE_LINK = 253
_TABLE_MAIN = 254
_IFA_F_NODAD = 0x02
_IFF_UP = 0x1
_IFF_NOARP = 0x80
_GONE = frozenset({errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV})
"""What the kernel says of a route or an address that is not there (any more)."""


@dataclass(frozen=True, slots=True)
class HostShape:
    """What the device is to look like."""

    mac: bytes
    addresses: tuple[Address, ...]
    """The router addresses, set as /32 and /128."""
    networks: frozenset[Network]
    """Where the pods are that the host reaches through the datapath."""
    mtu: int
    """Bytes of an IP datagram: the pods' own, so that whoever sends to them learns it here."""

    @property
    def routes(self) -> frozenset[tuple[Network, Address]]:
        """Network and source address; a network without a router of its family has none."""
        routers = {address.version: address for address in reversed(self.addresses)}
        return frozenset(
            (network, routers[network.version])
            for network in self.networks
            if network.version in routers
        )


async def check_free(device: str) -> None:
    """Prove that a device's name is free.

    Args:
        device: its name.

    Raises:
        LinkError: a device has it; the text names its owner where there is one.
    """
    async with open_route() as ipr:
        found = await ipr.link_lookup(ifname=device)
        if not found:
            return
        (link,) = await ipr.link("get", index=found[0])
    is_tap = link.get(("linkinfo", "kind")) == "tun"
    if is_tap and (owner := await asyncio.to_thread(tap_owner, device)):
        raise LinkError(f"device {device} is owned by {owner}: stop it first")
    raise LinkError(
        f"device {device} exists already: a Cilium agent's? Stop what uses it, or "
        f"`ip link del {device}`"
    )


async def shape_host(
    old: HostShape | None, new: HostShape, *, undo: bool = False, found: bool = False
) -> None:
    """Bring the device from one shape to the next.

    It has no ARP and no neighbour discovery: all there is behind it is the datapath, which looks
    at addresses and puts its own MACs.

    Args:
        old: as it is, None for a TAP just made.
        new: as it shall be.
        undo: take back a change that may have stopped half-way: what is there is fine.
        found: the device is of a daemon before, with an ``old`` that nobody knows: it is looked at.

    Raises:
        LinkError: the kernel refused a step; the text names it.
    """
    # In a thread with a loop of its own: the kernel takes its time, and packets must not wait.
    await asyncio.to_thread(lambda: asyncio.run(_shape(old, new, undo=undo, found=found)))


@dataclass(frozen=True, slots=True)
class _There:
    """What the kernel has of a shape."""

    addresses: frozenset[Address] = frozenset()
    routes: frozenset[tuple[Network, Address]] = frozenset()


async def _shape(old: HostShape | None, new: HostShape, *, undo: bool, found: bool) -> None:
    step = f"finding {HOST_DEVICE}"
    there = _There(frozenset(old.addresses), old.routes) if old else _There()
    try:
        async with open_route() as ipr:
            (index,) = await ipr.link_lookup(ifname=HOST_DEVICE)
            if found:
                there = await _look(ipr, index)
            for route in there.routes - new.routes:
                step = f"removing the route to {route[0]}"
                await _route(ipr, "del", index, *route)
            _tame_ipv6(wanted=any(address.version == 6 for address in new.addresses))
            step = f"setting MAC {new.mac.hex(':')} and MTU {new.mtu}"
            await _bring_up(ipr, index, new, fresh=old is None)
            for address in [one for one in new.addresses if one not in there.addresses]:
                step = f"adding address {address}"
                await _address(ipr, "add", index, address, undo=undo)
            for route in new.routes - there.routes:
                step = f"adding the route to {route[0]}, see `ip route show {route[0]}`"
                await _route(ipr, "add", index, *route, undo=undo)
            for address in [one for one in there.addresses if one not in new.addresses]:
                step = f"removing address {address}"
                await _address(ipr, "del", index, address)
    except (NetlinkError, OSError, ValueError) as error:
        reason = os.strerror(error.code) if isinstance(error, NetlinkError) else str(error)
        raise LinkError(f"{HOST_DEVICE}: {step}: {reason}") from error


async def _look(ipr: LoopIPRoute, index: int) -> _There:
    """Return what of our own making is on the device; the kernel's own routes are left out."""
    addresses: set[Address] = set()
    routes: set[tuple[Network, Address]] = set()
    async for entry in await ipr.addr("dump", index=index):
        text = entry.get("local") or entry.get("address")
        if text is not None and not ip_address(text).is_link_local:
            addresses.add(ip_address(text))
    for family in (socket.AF_INET, socket.AF_INET6):
        async for route in await ipr.route("dump", family=family, oif=index, table=_TABLE_MAIN):
            dst, source = route.get("dst"), route.get("prefsrc")
            if dst is not None and source is not None:
                network = ip_network(f"{dst}/{route['dst_len']}")
                routes.add((network, ip_address(source)))
    return _There(frozenset(addresses), frozenset(routes))


async def _bring_up(ipr: LoopIPRoute, index: int, shape: HostShape, *, fresh: bool) -> None:
    await ipr.link(
        "set",
        index=index,
        address=shape.mac.hex(":"),
        mtu=shape.mtu,
        gso_max_size=gso_max_size(shape.mtu),
    )
    if fresh:
        await ipr.link(
            "set",
            index=index,
            txqlen=_TX_QUEUE_LEN,
            flags=_IFF_UP | _IFF_NOARP,
            change=_IFF_UP | _IFF_NOARP,
        )


async def _address(
    ipr: LoopIPRoute, verb: str, index: int, address: Address, *, undo: bool = False
) -> None:
    extra: dict[str, Any] = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
    with _tolerated(verb, undo=undo):
        await ipr.addr(
            verb, index=index, address=str(address), prefixlen=address.max_prefixlen, **extra
        )


async def _route(
    ipr: LoopIPRoute,
    verb: str,
    index: int,
    network: Network,
    source: Address,
    *,
    undo: bool = False,
) -> None:
    v4 = network.version == 4
    extra: dict[str, Any] = {"scope": _SCOPE_LINK} if v4 else {}
    with _tolerated(verb, undo=undo):
        await ipr.route(
            verb,
            family=socket.AF_INET if v4 else socket.AF_INET6,
            dst=str(network),
            oif=index,
            prefsrc=str(source),
            **extra,
        )


@contextlib.contextmanager
def _tolerated(verb: str, *, undo: bool) -> Any:  # noqa: ANN401 - a generator for contextlib
    """Pass over what is gone when removing, and what is there when undoing."""
    try:
        yield
    except NetlinkError as error:
        fine = error.code in _GONE if verb == "del" else undo and error.code == errno.EEXIST
        if not fine:
            raise


def _tame_ipv6(*, wanted: bool) -> None:
    """Spare the drop counters what the kernel says of itself on a new link, to nobody here."""
    conf = Path(f"/proc/sys/net/ipv6/conf/{HOST_DEVICE}")
    with contextlib.suppress(OSError):  # no IPv6 in this kernel, or /proc/sys is read-only
        write_sysctl(conf / "disable_ipv6", "0" if wanted else "1")
        write_sysctl(conf / "addr_gen_mode", "1")  # no link-local address, so no solicitations
