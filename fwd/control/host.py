"""The node's side of the datapath, live: cilium_host in the pump, routes and masquerading with it.

As endpoints.py, a change is made in halves: ``prepare`` gives the kernel what the node file asks
for, ``commit`` lets packets through, ``rollback`` takes ``prepare`` back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fwd.control.compile import router_mac
from fwd.control.preflight import UnmetError, at_line
from fwd.control.revive import HOST
from fwd.control.store import Store
from fwd.datapath.packet import PORT_HOST
from fwd.model.address import host_network
from fwd.model.rows import Settings
from fwd.netlink.errors import LinkError
from fwd.netlink.host import HOST_DEVICE, HostShape, shape_host
from fwd.netlink.masquerade import Forwarding, masquerade, stop_masquerade
from fwd.netlink.outside import NET_DEVICE
from fwd.netlink.tap import open_tap
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile
    from fwd.control.net import NetDevice
    from fwd.control.revive import StoredTap
    from fwd.datapath.binding import Pump
    from fwd.model.rows import Address, Network
    from fwd.netlink.tap import Tap

__all__ = ["HostDevice", "HostPlan", "own_devices", "plan_host"]


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What a node file asks of the host."""

    shape: HostShape
    forward: frozenset[int]
    """Families (4, 6) that the host has to route between its devices."""
    sources: frozenset[Network]
    """Pods whose traffic to the world is masqueraded; empty = none is."""
    exempt: frozenset[Network | Address]
    """Destinations that are not the world."""


def plan_host(node: NodeFile, mtu: int) -> HostPlan:
    """Return what ``node`` asks of the host; ``mtu`` is the pods', bytes."""
    own = frozenset(node.node.pod_cidr)
    remote = frozenset(prefix for peer in node.peers for prefix in peer.pod_cidr)
    tunnel = node.tunnel.protocol == "vxlan"
    pods = own | remote
    native: frozenset[Address] = frozenset() if tunnel else frozenset(p.ip for p in node.peers)
    # IPv6 leaves pods alone unless the node says under which address it reaches the world
    families = frozenset({4, 6} if node.node.ip6 is not None else {4})
    sources = frozenset(prefix for prefix in own if prefix.version in families)
    return HostPlan(
        shape=HostShape(
            mac=router_mac(node),
            addresses=node.node.router_ip,
            # with native routing the way to other nodes' pods is the host's own affair
            networks=(pods if tunnel else own) | _services(node, pods),
            mtu=mtu,
        ),
        forward=families if node.features.masquerade or not tunnel else frozenset(),
        sources=sources if node.features.masquerade else frozenset(),
        exempt=pods | native,
    )


def _services(node: NodeFile, pods: frozenset[Network]) -> frozenset[Network]:
    """Return the routes to services: their addresses, and the one that nodes' own backends answer.

    An address of a node is the kernel's to find, one of a pod's network has a route already.
    """
    nodes = set(node.node.own)
    for peer in node.peers:
        nodes.update((peer.ip, *peer.router_ip))
    found = {
        host_network(service.frontend)
        for service in node.services
        if service.frontend not in nodes
        and not any(service.frontend in network for network in pods)
    }
    families = {network.version for network in found}
    loopbacks = {one.version: one for one in (Settings().loopback, Settings().loopback6)}
    loopbacks |= {one.version: one for one in node.node.loopback_ip}
    answers = (one for one in loopbacks.values() if one.version in families)
    return frozenset(found) | frozenset(map(host_network, answers))


class HostDevice:
    """cilium_host, while the node has a router address.

    Args:
        pump: the TAP is added to it and removed from it.
        mtu: of pods, bytes.
        store: where its descriptor is kept over a restart.
    """

    def __init__(self, pump: Pump, mtu: int, store: Store | None = None) -> None:
        self._pump = pump
        self._store = store or Store()
        self._stored = ""
        self._adopted = False
        """The device is of a daemon before, and not yet compared with the node file."""
        self._mtu = mtu
        self._tap: Tap | None = None
        self._watched = False
        self._plan: HostPlan | None = None
        self._before: HostPlan | None = None
        self._forwarding = Forwarding()
        self._masquerading = False
        self.is_lost = False
        """Somebody deleted the device, and no reload has made it again."""

    @property
    def tap(self) -> Tap | None:
        """The device's; None while there is none."""
        return self._tap

    def adopt(self, found: StoredTap) -> None:
        """Use the device of a daemon before; the next ``prepare`` brings it into shape."""
        self._tap, self._watched, self._stored = found.tap, found.watched, found.name
        self._adopted = True
        self._masquerading = True  # it may have: to stop it where it is not is fine
        self._forwarding.adopt(int(one) for one in found.name.split("-")[1:] if one in {"4", "6"})

    async def prepare(self, node: NodeFile) -> None:
        """Make what ``node`` asks for; no packet passes a new device yet.

        Raises:
            ConfigError: the host does not allow it; everything is as before.
        """
        self._before, plan = self._plan, plan_host(node, self._mtu)
        if plan == self._plan or (self._tap is None and not plan.shape.addresses):
            return
        try:
            if self._tap is None:
                self._tap = open_tap(HOST_DEVICE)
            self._plan = plan
            before = self._before.shape if self._before else None
            await shape_host(before, plan.shape, found=self._adopted)
            await self._open_world(plan)
        except LinkError as error:
            await self.rollback()
            raise at_line(node, node.node.line, str(error), UnmetError) from None
        except BaseException:
            await self.rollback()
            raise

    async def rollback(self) -> None:
        """Undo ``prepare``."""
        new, old = self._plan, self._before
        if new is old:
            return
        if old is None or new is None:
            self._plan = None
            await self.close(keep=self._adopted)
            return
        self._plan = old
        try:
            await shape_host(new.shape, old.shape, undo=True)
            await self._open_world(old)
        except LinkError as error:  # the reload's own error is the one to raise
            get_logger().error("the host's routes are not as before", error=str(error))

    def commit(self) -> None:
        """Let packets of the host through."""
        self._before, self._adopted, self.is_lost = self._plan, False, False
        if self._tap is None:
            return
        if not self._watched:
            self._pump.add_tap(PORT_HOST, self._tap.fd, self._tap.vnet_hdr_size)
            self._watched = True
        name = "-".join([HOST, *map(str, self._forwarding.ours)])
        if name != self._stored:
            self._forget()
            self._stored = name
            self._store.put(name, self._tap.fd)

    def mark_gone(self) -> None:
        """Note that somebody deleted the device; the next reload makes it again."""
        tap, self._tap, self.is_lost = self._tap, None, True
        self._watched, self._plan, self._before = False, None, None
        self._forget()
        if tap is not None:
            asyncio.get_running_loop().run_in_executor(None, tap.close)
        get_logger().warning(f"{HOST_DEVICE} gone: somebody deleted it; a reload makes it again")

    async def close(self, *, keep: bool = False) -> None:
        """Take the device, its routes, the masquerading and the forwarding away.

        Args:
            keep: leave all of it to the next daemon.
        """
        tap, self._tap = self._tap, None
        if self._watched:
            self._pump.remove(PORT_HOST)
            self._watched = False
        self._plan = self._before = None
        if keep:
            if tap is not None:
                tap.close()
            return
        self._forget()
        try:
            self._forwarding.restore()
            await self._stop_masquerade()
        except (LinkError, OSError) as error:
            get_logger().error("the host is not as it was before", error=str(error))
        if tap is not None:
            await asyncio.to_thread(tap.close)

    def _forget(self) -> None:
        name, self._stored = self._stored, ""
        if name:
            self._store.drop(name)

    async def _open_world(self, plan: HostPlan) -> None:
        if plan.sources:
            await masquerade(plan.sources, plan.exempt)
            self._masquerading = True
        else:
            await self._stop_masquerade()
        self._forwarding.enable(plan.forward)

    async def _stop_masquerade(self) -> None:
        if self._masquerading:
            await stop_masquerade()
            self._masquerading = False


def own_devices(host: HostDevice | None, net: NetDevice | None) -> dict[str, Any]:
    """Return what a status says of the node's own devices.

    Returns:
        ``outside`` (``NetDevice.status``), and ``lost``: names of those that somebody deleted.
    """
    names = {HOST_DEVICE: host, NET_DEVICE: net}
    return {
        "outside": net.status() if net else None,
        "lost": [name for name, device in names.items() if device and device.is_lost],
    }
