"""The daemon: everything is composed here, and undone in reverse order.

``Agent`` owns the datapath, the pump, the pods' devices and the tasks around them. It decides
nothing itself: rows come from compile.py, devices from endpoints.py, packets from the pump.
What listens for clients is handed in by the caller, so that the API stands above this room.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

from fwd.config.check import unsteered
from fwd.control.apply import apply, as_held, diff
from fwd.control.compile import compile_world
from fwd.control.endpoints import READY, EndpointDevices
from fwd.control.host import HostDevice, own_devices
from fwd.control.memory import Garbage
from fwd.control.net import NetDevice
from fwd.control.node_source import NodeSource
from fwd.control.notify import Notifier, keep_telling
from fwd.control.offload import Offloads
from fwd.control.policy import explain_event
from fwd.control.preflight import check_start, has_host, narrow_ways, pod_mtu
from fwd.control.reload import count_changes, refuse_fixed
from fwd.control.revive import Revived
from fwd.control.slow_ports import SlowPorts
from fwd.control.store import ARENA, TUNNEL, Store
from fwd.control.sweep import ConntrackSweep, purge, purge_services
from fwd.control.takeover import hand_over, held_by, say, start_pump, take_socket, take_tables
from fwd.datapath.packet import PORT_HOST, PORT_NETDEV
from fwd.observe.log import get_logger
from fwd.observe.monitor import MonitorHub

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from fwd.config.schema import NodeFile
    from fwd.control.node_source import ManifestFile
    from fwd.control.world import World
    from fwd.datapath.binding import Datapath, Event, Punt
    from fwd.netlink.link import Device

__all__ = ["Agent", "Serving"]

Serving: TypeAlias = "Callable[[Agent], AbstractAsyncContextManager[None]]"
"""Listens for an agent's clients while the context is open (``serving`` in fwd/api/server.py)."""

_SETTLE_AT_ONCE = 4096
"""Prefixes that are sorted in half a millisecond."""


class Agent:
    """One node's daemon.

    Args:
        path: of the node file, read at start and at every reload.
        serving: listens for clients once everything runs.
        notifier: the service manager; None = there is none.
        revived: what a daemon before has left, already forwarding; None = nothing.
    """

    node: NodeFile
    world: World
    dp: Datapath
    monitor: MonitorHub

    def __init__(
        self,
        path: Path,
        serving: Serving,
        notifier: Notifier | None = None,
        revived: Revived | None = None,
    ) -> None:
        self._revived = revived or Revived(Store())
        self._keep = self._revived.found
        """Leave devices and descriptors to the next daemon when this one ends."""
        self.path = path
        self.started_at = 0.0
        """Seconds since the epoch."""
        self._serving = serving
        self._notifier = notifier or Notifier()
        self._log = get_logger()
        self._stack = AsyncExitStack()
        self._switching = asyncio.Lock()
        self._garbage = Garbage()
        self._tasks: set[asyncio.Task[object]] = set()
        self._slow_ports = SlowPorts({}, {}, ())
        self._mtu = 0

    async def start(self) -> None:
        """Start the daemon; when it returns, packets flow and clients are answered.

        Raises:
            ConfigError: the node file is wrong, or asks for what this host does not have.
            LinkError: the host or our rights lack something.
            DatapathError: the tables cannot be made.
            OSError: a socket for clients cannot be had.
            Whatever it raises, nothing is left behind but what a daemon before had left.
        """
        say(self._revived)
        self._source = await asyncio.to_thread(NodeSource.read, self.path, (), os.environ)
        node = await asyncio.to_thread(self._source.node)
        for warning in (*node.warnings, *unsteered(node)):
            self._log.warning(warning)
        device = await check_start(node, held_by(self._revived))
        self._mtu = pod_mtu(node, device)
        for warning in narrow_ways(node, self._mtu):
            self._log.warning(warning)
        if node.features.nodeport and not has_host(device):
            self._log.warning("features.nodeport: services are not reached from outside, node.ip "
                              "is on a loopback device", file=str(node.path))  # fmt: skip
        async with AsyncExitStack() as stack:
            await self._compose(node, stack, device)
            self._stack = stack.pop_all()
        self._keep = False
        if self._notifier.is_heard:
            self.spawn(keep_telling(self._notifier, self._summary, self._pump.progress), "notify")
        self._log.info("started", node=node.node.name, ip=str(node.node.ip), device=device.name,
                       endpoints=len(node.endpoints), mtu=self._mtu)  # fmt: skip

    async def stop(self) -> None:
        """Stop serving, take every device down and forget all connections.

        Where the manager keeps descriptors and this is no stop for good, all is left as it is.
        """
        self._keep = not await self._revived.store.ends_for_good()
        self._notifier.stopping()
        await self._stack.aclose()
        self._log.info("stopped", left_to_the_next=self._keep)

    async def reload(self) -> dict[str, Any]:
        """Read the node file again and change what differs, all or nothing.

        Returns:
            ``revision``, ``endpoints`` (names ``added``, ``removed``, ``replaced``), ``tables``
            (rows ``added``, ``changed``, ``removed`` of each) and ``notes``.

        Raises:
            ConfigError: the file is wrong or its devices cannot be made; nothing was changed.
            DatapathError: the tables cannot hold it; nothing was changed.
        """
        async with self._switching:
            with self._notifier.reloading():
                report = await self._go_over(await asyncio.to_thread(self._source.reread))
        self._log.info("reloaded", **report)
        return report

    async def change_manifests(
        self, files: Sequence[ManifestFile], *, delete: bool
    ) -> dict[str, Any]:
        """Apply the objects of manifest files, or delete them, all or nothing; reloads keep them.

        Returns:
            As ``reload``, and ``objects``: ``kind``, ``name`` and ``action`` of each.

        Raises:
            ConfigError, DatapathError: as ``reload``; nothing was changed.
        """
        async with self._switching:
            change = self._source.deleted if delete else self._source.applied
            source, objects = await asyncio.to_thread(change, files)
            report = await self._go_over(source)
        self._log.info("manifests changed", objects=objects, **report)
        return {"objects": objects} | report

    async def _go_over(self, source: NodeSource) -> dict[str, Any]:
        """Become what ``source`` says, or raise and stay."""
        node = await asyncio.to_thread(source.node)
        refuse_fixed(self.node, node)
        known = unsteered(self.node)
        with self._garbage.collected():
            report = await self._switch(node, self.node, self.world)
        self._source = source
        report["notes"] += node.warnings[len(source.base.warnings) :]
        report["notes"] += [text for text in unsteered(node) if text not in known]
        return report

    def status(self) -> dict[str, Any]:
        """Return what only the daemon knows of itself."""
        return {
            "state": "running",
            "tunnel": {
                "protocol": self.node.tunnel.protocol,
                "port": self.node.tunnel.port,
                "mtu": self._mtu,
            },
            **own_devices(self._host, self._net),
            "offload": self._offloads.status(self._pump.pump),
            "sweep": {"runs": self._sweep.runs, "deleted": self._sweep.deleted},
        }

    def _summary(self) -> str:
        """The line of `systemctl status`."""
        states = list(self._devices.states().values())
        return (
            f"{self.node.node.name}: {states.count(READY)} of {len(states)} endpoints ready, "
            f"{len(self.node.peers)} peers, revision {self.dp.generation}"
        )

    def pump_stats(self) -> dict[str, int]:
        """Return the counters of the I/O room and of what stands around it."""
        return self._pump.pump.stats() | {
            "punt_write_errors": self._pump.punt_write_errors,
            "devices_lost": self._devices.lost,
        }

    def endpoint_states(self) -> dict[int, str]:
        """Return lxc_id to ``ready`` or ``gone``."""
        return self._devices.states()

    def view(self) -> Datapath:
        """Return the tables as they are now, copy on write, for a trace; the caller closes it."""
        return self._arena.view()

    # ---- composition ----

    async def _compose(self, node: NodeFile, stack: AsyncExitStack, device: Device) -> None:
        """Make everything in the order of need; ``stack`` undoes it in the reverse order."""
        revived, store = self._revived, self._revived.store
        stack.callback(self._let_go, ARENA, TUNNEL)
        wanted = await asyncio.to_thread(compile_world, node)
        self._arena, self._pump, old = await take_tables(revived, wanted)
        self.dp = self._arena.dp
        self._udp = await take_socket(revived, node)
        self._offloads = await Offloads.probe(node.node.ip)
        pump, host = self._pump.pump, has_host(device)
        self._host = HostDevice(pump, self._mtu, store) if host else None
        self._net = NetDevice(pump, device, store) if host else None
        self._devices = EndpointDevices(pump, self._mtu, self._host, self._net, store)
        hand_over(revived, self._devices, self._host, self._net)
        stack.push_async_callback(self._close_devices)
        for note in (await self._switch(node, node, old))["notes"]:
            self._log.warning(note)
        self._pump.report_to(self._answer, self._device_gone)  # not before there is who answers
        start_pump(revived, self._pump, self._udp)
        self.monitor = MonitorHub(self.dp, self._rule_of, self._ifname_of)
        stack.callback(self.monitor.close)
        self.monitor.refresh_mask()
        stack.push_async_callback(self._end_tasks)
        self._sweep = ConntrackSweep(self.dp, self._pump.moved)
        self.spawn(self._offloads.watch(self._pump), "offloads")
        self.spawn(self._sweep.run(), "sweep")
        self.started_at = time.time()
        await stack.enter_async_context(self._serving(self))

    def _let_go(self, *names: str) -> None:
        """Close tables and socket, and unless they are left to the next daemon their duplicates."""
        self._revived.close()
        for name in names if not self._keep else ():
            self._revived.store.drop(name)

    async def _close_devices(self) -> None:
        if self._keep:
            self._pump.pause()  # first: what comes for a port that is closed already is lost
        await self._devices.close(keep=self._keep)

    async def _switch(self, node: NodeFile, old: NodeFile, world: World | None) -> dict[str, Any]:
        """Go over from ``old`` and its ``world`` to ``node``, or raise and stay."""
        change = await self._devices.prepare(node)
        try:
            new = await asyncio.to_thread(compile_world, node, change.links, self._mtu)
            ops = diff(world, new)
            report = apply(self.dp, ops)
        except BaseException:
            await self._devices.rollback(old, change)
            raise
        self.node, self.world = node, as_held(self.dp, new)
        self._slow_ports = SlowPorts.of(new.endpoints, new.lxc)
        self.dp.generation += 1
        await self._devices.commit(change)
        self._offloads.use(node, self._pump, self._udp)
        self._devices.set_offload(self._offloads.plan.tap)
        await self._settle()
        if report.gone_addrs:
            self.spawn(purge(self.dp, report.gone_addrs), "purge")
        if report.services_shrank:
            self.spawn(purge_services(self.dp), "purge-services")
        fresh, left = ({d.name for d in some} for some in (change.fresh, change.replaced))
        removed = {device.name for device in change.removed} | left - change.wanted.keys()
        return {
            "revision": self.dp.generation,
            "endpoints": {
                "added": sorted(fresh - left),
                "removed": sorted(removed),
                "replaced": sorted(fresh & left),
            },
            "tables": count_changes(ops),
            "notes": list(report.notes),
        }

    async def _settle(self) -> None:
        """Sort the prefixes, beside the packets if there are so many that it takes long."""
        if self.dp.stats("ipcache").count <= _SETTLE_AT_ONCE:
            self.dp.ipcache_settle()
            return
        thread = asyncio.ensure_future(asyncio.to_thread(self.dp.ipcache_settle))
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            await thread  # the tables must outlive it
            raise

    def spawn(self, work: Coroutine[object, object, object], name: str) -> None:
        """Run something beside; it is cancelled at the end and its failure is logged."""
        task = asyncio.get_running_loop().create_task(work, name=f"fwd-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task failed", task=task.get_name(), exc_info=error)

    async def _end_tasks(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what the pump and the monitor ask ----

    def _answer(self, punt: Punt) -> bytes | None:
        return self._slow_ports.answer(punt)

    def _device_gone(self, port: int) -> None:
        if port == PORT_HOST and self._host is not None:
            self._host.mark_gone()
            return
        if port == PORT_NETDEV and self._net is not None:
            self._net.mark_gone()
            return
        device = self._devices.mark_gone(port)
        name = device.name if device else None
        self._log.warning(
            "device gone: its namespace or eth0 was deleted; make it again and reload, or remove "
            "the endpoint from the node file", endpoint=name, id=port)  # fmt: skip

    def _rule_of(self, event: Event) -> Mapping[str, Any] | None:
        return explain_event(self.world, event)

    def _ifname_of(self, ifindex: int) -> str | None:
        rows = (row.lxc_id for row in self.world.endpoints if row.ifindex == ifindex)
        lxc_id = next(rows, None)
        return next((one.ifname for one in self.node.endpoints if one.id == lxc_id), None)
