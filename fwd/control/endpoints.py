"""The life of endpoint devices: plug, watch, lose, unplug. TAPs and namespaces, no table rows.

A change is made in two halves, so that a reload can be all or nothing: ``prepare`` makes what is
new without letting a packet through, ``commit`` puts it to work and removes what went; ``rollback``
takes ``prepare`` back. An endpoint that changed has to give its eth0 up in between.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fwd.config.load import ConfigError
from fwd.control.preflight import UnmetError, check_endpoints
from fwd.control.revive import PodName
from fwd.control.store import Store
from fwd.control.world import Link
from fwd.netlink.errors import LinkError
from fwd.netlink.link import PodLink, plug
from fwd.netlink.netns import namespace_path, open_namespace
from fwd.netlink.tap import open_tap
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwd.config.schema import EndpointSection, NodeFile
    from fwd.control.host import HostDevice
    from fwd.control.net import NetDevice
    from fwd.control.revive import StoredTap
    from fwd.datapath.binding import Pump
    from fwd.netlink.tap import Tap

__all__ = ["READY", "Change", "EndpointDevice", "EndpointDevices"]

READY = "ready"
GONE = "gone"


@dataclass(slots=True)
class EndpointDevice:
    """One endpoint's TAP."""

    name: str
    lxc_id: int
    netns: Path
    link: PodLink
    line: int
    """Of the endpoint in its file."""
    file: str = ""
    """A manifest; empty = the node file."""
    tap: Tap | None = None
    """None before ``prepare`` and once the device is gone."""
    ifindex: int = 0
    watched: bool = False
    """The pump reads it."""
    stored: str = ""
    """Its name in the descriptor store; empty = it is not there."""

    @property
    def digest(self) -> str:
        """What tells apart devices that differ in any way a pod could see."""
        return hashlib.blake2b(repr(self.link).encode(), digest_size=8).hexdigest()

    @property
    def state(self) -> str:
        """``ready``, or ``gone``: the device vanished under the daemon."""
        return GONE if self.tap is None else READY

    def is_like(self, other: EndpointDevice) -> bool:
        """Tell whether both are the same device, seen from the pod and from the pump."""
        return (self.lxc_id, self.netns, self.link) == (other.lxc_id, other.netns, other.link)


@dataclass(slots=True)
class Change:
    """The way from the devices of one node file to those of the next."""

    wanted: dict[str, EndpointDevice] = field(default_factory=dict)
    """All devices of the new file; those that stay are the old objects."""
    fresh: list[EndpointDevice] = field(default_factory=list)
    replaced: list[EndpointDevice] = field(default_factory=list)
    """Old devices in namespaces of fresh ones: ``prepare`` has to close them first."""
    removed: list[EndpointDevice] = field(default_factory=list)

    @property
    def links(self) -> Mapping[str, Link]:
        """Endpoint name to device, as the compiler wants it."""
        return {one.name: Link(one.ifindex) for one in self.wanted.values() if one.tap is not None}


class EndpointDevices:
    """The devices of all local endpoints.

    Args:
        pump: TAPs are added to it and removed from it.
        mtu: of every pod, bytes.
        host: the node's own device, which changes along; None where it has none.
        net: and the one for traffic from outside.
        store: where descriptors are kept over a restart.
    """

    def __init__(
        self,
        pump: Pump,
        mtu: int,
        host: HostDevice | None = None,
        net: NetDevice | None = None,
        store: Store | None = None,
    ) -> None:
        self._store = store or Store()
        self._found: list[tuple[PodName, StoredTap]] = []
        self._pump = pump
        self._mtu = mtu
        self._host = host
        self._net = net
        self._devices: dict[str, EndpointDevice] = {}
        self.lost = 0
        """Devices that vanished under the daemon, ever."""

    def adopt(self, found: Iterable[tuple[PodName, StoredTap]]) -> None:
        """Have the next ``prepare`` use the devices of a daemon before, where they still fit."""
        self._found = list(found)

    async def prepare(self, node: NodeFile) -> Change:
        """Make the devices that ``node`` has and we have not; no packet passes them yet.

        Raises:
            ConfigError: one cannot be made; everything is as before.
        """
        change = self._plan(node)
        freed = {one.netns for one in change.replaced}
        names = {one.name for one in change.fresh if one.netns not in freed}
        await check_endpoints(node, [one for one in node.endpoints if one.name in names])
        try:
            for old in change.replaced:
                await self._close(old)
            if any(old.stored for old in change.replaced):  # or eth0 is still there
                await asyncio.to_thread(self._store.settle)
            for device in change.fresh:
                await _plug(node, device)
            if self._host is not None:
                await self._host.prepare(node)
            if self._net is not None:
                await self._net.prepare(node)
        except BaseException:
            await self.rollback(node, change)
            raise
        return change

    async def commit(self, change: Change) -> None:
        """Close the devices of removed endpoints and let packets through the new ones."""
        self._devices = change.wanted
        for old in change.removed:  # at once: the tables know others by their ports already
            self._unwatch(old)
        for device in change.wanted.values():
            self._watch(device)
        for old in change.removed:
            await self._close(old)
        if self._host is not None:
            self._host.commit()
        if self._net is not None:
            await self._net.commit()

    async def rollback(self, node: NodeFile, change: Change) -> None:
        """Undo ``prepare``: new devices vanish, replaced ones come back."""
        if self._host is not None:
            await self._host.rollback()
        if self._net is not None:
            await self._net.rollback()
        for device in change.fresh:
            await self._close(device)
        for old in change.replaced:
            if old.tap is not None or not old.link.pod:
                continue
            try:
                await _plug(node, old)
            except ConfigError as error:  # the reload's own error is the one to raise
                get_logger().error("endpoint lost", endpoint=old.name, error=str(error))
            else:
                self._watch(old)

    def set_offload(self, offload: int) -> None:
        """Tell every TAP, now and from now on, which super-packets we take (``TAP_*``).

        Raises:
            LinkError: the kernel refuses.
        """
        taps = [one.tap for one in self._devices.values()]
        if self._host is not None:
            taps.append(self._host.tap)
        if self._net is not None:
            taps.append(self._net.tap)
        for tap in taps:
            if tap is not None:
                tap.set_offload(offload)

    def mark_gone(self, port: int) -> EndpointDevice | None:
        """Note that the device behind a port vanished; the pump has let go of it.

        Returns:
            The endpoint's device, None when the port is no endpoint's.
        """
        device = next((one for one in self._devices.values() if one.lxc_id == port), None)
        if device is not None and device.tap is not None:
            # In a thread: the kernel may still be busy taking the namespace down.
            asyncio.get_running_loop().run_in_executor(None, device.tap.close)
            device.tap, device.watched = None, False
            self._forget(device)
            self.lost += 1
        return device

    def states(self) -> dict[int, str]:
        """Return lxc_id to state."""
        return {one.lxc_id: one.state for one in self._devices.values()}

    async def close(self, *, keep: bool = False) -> None:
        """Remove every device, or ``keep`` those in the store for the next daemon."""
        if self._net is not None:
            await self._net.close(keep=keep)
        if self._host is not None:
            await self._host.close(keep=keep)
        for device in self._devices.values():
            await self._close(device, keep=keep)
        self._devices = {}

    def _plan(self, node: NodeFile) -> Change:
        change = Change()
        for section in node.endpoints:
            device, old = self._describe(node, section), self._devices.get(section.name)
            if old is not None and old.is_like(device) and not _can_return(old):
                device = old
            elif not self._take(device):
                change.fresh.append(device)
            change.wanted[section.name] = device
        used = {one.netns for one in change.fresh}
        leftovers, self._found = _strangers(self._found, used), []
        for old in (*self._devices.values(), *leftovers):
            if change.wanted.get(old.name) is not old:
                (change.replaced if old.netns in used else change.removed).append(old)
        return change

    def _take(self, device: EndpointDevice) -> bool:
        """Give a device the TAP a daemon before has made for it, if there is one just like it."""
        for position, (name, one) in enumerate(self._found):
            same = (name.lxc_id, name.digest) == (device.lxc_id, device.digest)
            if same and name.netns == _inode(device.netns):
                device.tap, device.ifindex = one.tap, name.ifindex
                device.watched, device.stored = one.watched, one.name
                del self._found[position]
                return True
        return False

    def _describe(self, node: NodeFile, section: EndpointSection) -> EndpointDevice:
        link = PodLink(
            pod=section.name,
            mac=section.mac,
            addresses=section.ip,
            routers=node.node.router_ip,
            mtu=self._mtu,
        )
        netns = namespace_path(section.netns or "")
        return EndpointDevice(section.name, section.id, netns, link, section.line, section.file)

    def _watch(self, device: EndpointDevice) -> None:
        if device.tap is None:
            return
        if not device.watched:
            self._pump.add_tap(device.lxc_id, device.tap.fd, device.tap.vnet_hdr_size)
            device.watched = True
        if not device.stored:
            where = (device.ifindex, device.link.mac, _inode(device.netns))
            device.stored = str(PodName(device.lxc_id, *where, device.digest))
            self._store.put(device.stored, device.tap.fd)

    def _unwatch(self, device: EndpointDevice) -> None:
        if device.watched:
            self._pump.remove(device.lxc_id)
            device.watched = False

    def _forget(self, device: EndpointDevice) -> None:
        name, device.stored = device.stored, ""
        if name:
            self._store.drop(name)

    async def _close(self, device: EndpointDevice, *, keep: bool = False) -> None:
        tap, device.tap = device.tap, None
        self._unwatch(device)
        if not keep:
            self._forget(device)
        if tap is not None:
            await asyncio.to_thread(tap.close)  # 20 ms in the kernel: packets must not wait


def _can_return(device: EndpointDevice) -> bool:
    """Tell whether a device is gone and its namespace is there (again)."""
    return device.tap is None and device.netns.exists()


def _inode(netns: Path) -> int:
    try:
        return netns.stat().st_ino
    except OSError:
        return 0


def _strangers(
    found: Iterable[tuple[PodName, StoredTap]], used: Iterable[Path]
) -> list[EndpointDevice]:
    """Devices of a daemon before that no endpoint of the node file has.

    Args:
        found: they and their names.
        used: namespaces in which new devices are to be made.
    """
    where = {_inode(path): path for path in used}
    devices = []
    for name, one in found:
        link = PodLink(pod="", mac=name.mac, addresses=(), routers=(), mtu=0)
        netns = where.get(name.netns, Path())
        devices.append(
            EndpointDevice(one.name, name.lxc_id, netns, link, 0, "", one.tap, name.ifindex,
                           one.watched, one.name)
        )  # fmt: skip
        get_logger().warning(
            "stored device dropped: the node file has no endpoint like it",
            id=name.lxc_id,
            replaced=netns != Path(),
        )
    return devices


async def _plug(node: NodeFile, device: EndpointDevice) -> None:
    try:
        netns_fd = open_namespace(str(device.netns))
        try:
            device.tap = open_tap()
            device.ifindex = await plug(device.tap.name, netns_fd, device.link)
        finally:
            os.close(netns_fd)
    except LinkError as error:
        file, line = device.file, device.line
        where = f"{file}:{line}" if file else node.place(line)
        raise UnmetError(f"{where}: {error}") from None
