"""Services for traffic from outside, live: cilium_net in the pump, and what is steered to it.

As host.py, a change is made in halves. While it is under way the frontends of both node files are
steered; ``commit`` leaves the new ones, ``rollback`` the old.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from fwd.control.compile import router_mac
from fwd.control.preflight import UnmetError, at_line, check_outside
from fwd.control.revive import NET
from fwd.control.store import Store
from fwd.datapath.packet import PORT_NETDEV
from fwd.netlink.errors import LinkError
from fwd.netlink.outside import (
    NET_DEVICE,
    NetShape,
    Steering,
    allow_forwarding,
    shape_net,
    steer,
    stop_steering,
)
from fwd.netlink.tap import open_tap
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile
    from fwd.control.revive import StoredTap
    from fwd.datapath.binding import Pump
    from fwd.netlink.link import Device
    from fwd.netlink.tap import Tap

__all__ = ["NetDevice", "NetPlan", "plan_net"]


@dataclass(frozen=True, slots=True)
class NetPlan:
    """What a node file asks for."""

    shape: NetShape
    steering: Steering


def plan_net(node: NodeFile, uplink: Device) -> NetPlan | None:
    """Return what ``node`` asks for on this uplink; None without ``features.nodeport``."""
    if not node.features.nodeport:
        return None
    rows = [one for one in node.services if "routable" in one.flags and one.scope == "external"]
    tunnel = node.tunnel.protocol == "vxlan"
    others = [prefix for peer in node.peers for prefix in peer.pod_cidr if tunnel]
    ours = {node.node.ip}.union(*(endpoint.ip for endpoint in node.endpoints))
    return NetPlan(
        shape=NetShape(router_mac(node), uplink.mtu),
        steering=Steering(
            uplink=uplink.name,
            node_ip=node.node.ip,
            frontends=frozenset(
                (one.frontend, one.proto, one.port)
                for one in rows
                if isinstance(one.frontend, IPv4Address)
            ),
            # those in the tunnel, too: no frame of the uplink comes from them
            answers=frozenset(
                (backend.ip, one.proto, backend.port)
                for one in rows
                for backend in one.backends
                if isinstance(backend.ip, IPv4Address) and backend.ip not in ours
            ),
            inside=frozenset(
                prefix
                for prefix in (*node.node.pod_cidr, *others)
                if isinstance(prefix, IPv4Network)
            ),
        ),
    )


class NetDevice:
    """cilium_net, while the node file has ``features.nodeport``.

    Args:
        pump: the TAP is added to it and removed from it.
        uplink: the device that carries the node's address.
        store: where its descriptor is kept over a restart.
    """

    def __init__(self, pump: Pump, uplink: Device, store: Store | None = None) -> None:
        self._pump = pump
        self._store = store or Store()
        self._stored = False
        self._adopted = False
        """The device is of a daemon before, and not yet compared with the node file."""
        self._uplink = uplink
        self._tap: Tap | None = None
        self._watched = False
        self._plan: NetPlan | None = None
        self._before: NetPlan | None = None
        self._steered: Steering | None = None
        """What the kernel was told last; None = nothing."""
        self._fresh = True
        """Nothing was done yet: a killed daemon may have left its tables."""
        self.is_lost = False
        """Somebody deleted the device, and no reload has made it again."""

    @property
    def tap(self) -> Tap | None:
        """The device's; None while there is none."""
        return self._tap

    def adopt(self, found: StoredTap) -> None:
        """Use the device of a daemon before; the next ``prepare`` brings it into shape."""
        self._tap, self._watched = found.tap, found.watched
        self._stored = self._adopted = True

    async def prepare(self, node: NodeFile) -> None:
        """Make what ``node`` asks for; no packet passes a new device yet.

        Raises:
            ConfigError: the host does not allow it; everything is as before.
        """
        self._before, plan = self._plan, plan_net(node, self._uplink)
        try:
            if plan is None:
                await self._sweep()
            else:
                await self._make(node, plan)
        except LinkError as error:
            await self.rollback()
            line = node.features.line or node.node.line
            raise at_line(node, line, str(error), UnmetError) from None
        except BaseException:
            await self.rollback()
            raise
        self._plan, self._fresh = plan, False

    async def rollback(self) -> None:
        """Undo ``prepare``."""
        self._plan = self._before
        if self._plan is None:
            await self.close(keep=self._adopted)
            return
        try:
            await shape_net(self._plan.shape)
            await self._steer(self._plan.steering)
        except LinkError as error:  # the reload's own error is the one to raise
            get_logger().error(f"{NET_DEVICE} is not as before", error=str(error))

    async def commit(self) -> None:
        """Let packets from outside through, and leave to the host what is no frontend any more."""
        self._before, self._adopted, self.is_lost = self._plan, False, False
        if self._plan is None:
            await self.close()
            return
        if self._tap is not None and not self._watched:
            self._pump.add_tap(PORT_NETDEV, self._tap.fd, self._tap.vnet_hdr_size)
            self._watched = True
        if self._tap is not None and not self._stored:
            self._store.put(NET, self._tap.fd)
            self._stored = True
        try:
            if self._steered != self._plan.steering:
                await self._steer(self._plan.steering)
        except LinkError as error:  # it took as many a moment ago
            get_logger().error("removed frontends are not left to the host", error=str(error))

    def mark_gone(self) -> None:
        """Note that somebody deleted the device; the next reload makes it again."""
        tap, self._tap, self.is_lost = self._tap, None, True
        self._watched, self._plan, self._before = False, None, None
        self._forget()
        if tap is not None:
            asyncio.get_running_loop().run_in_executor(None, tap.close)
        get_logger().warning(
            f"{NET_DEVICE} gone: somebody deleted it, services are not reached from outside; "
            "a reload makes it again"
        )

    async def close(self, *, keep: bool = False) -> None:
        """Leave all frames to the host and take the device away.

        Args:
            keep: leave device and steering to the next daemon.
        """
        tap, self._tap = self._tap, None
        self._plan = self._before = None
        if not keep:
            self._forget()
        try:
            if not keep and self._steered is not None:
                await stop_steering()
                self._steered = None
        except LinkError as error:
            get_logger().error("the host is not as it was before", error=str(error))
        if self._watched:
            self._pump.remove(PORT_NETDEV)
            self._watched = False
        if tap is not None:
            await asyncio.to_thread(tap.close)

    def status(self) -> dict[str, Any] | None:
        """Return device, uplink and how many frontends are steered; None when there is none."""
        if self._tap is None or self._steered is None:
            return None
        return {
            "device": NET_DEVICE,
            "uplink": self._steered.uplink,
            "frontends": len(self._steered.frontends),
        }

    def _forget(self) -> None:
        if self._stored:
            self._store.drop(NET)
            self._stored = False

    async def _make(self, node: NodeFile, plan: NetPlan) -> None:
        if self._tap is None:
            if not self._fresh:  # turned on by a reload: nobody has looked yet
                await check_outside(node, self._uplink)
            self._tap = open_tap(NET_DEVICE)
        if self._before is None or self._before.shape != plan.shape:
            await shape_net(plan.shape)
        else:
            allow_forwarding()  # the host's switch may just have been turned
        both = plan.steering
        if self._before is not None:
            old = self._before.steering
            both = replace(
                both,
                frontends=both.frontends | old.frontends,
                answers=both.answers | old.answers,
            )
        await self._steer(both)  # also when nothing changes: somebody may have removed it

    async def _steer(self, steering: Steering) -> None:
        await steer(steering)
        self._steered = steering

    async def _sweep(self) -> None:
        """Remove what a killed daemon left, if this one will not replace it."""
        if self._fresh and shutil.which("nft"):
            with contextlib.suppress(LinkError):  # no nftables in this kernel: nothing was left
                await stop_steering()
