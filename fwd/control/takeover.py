"""From what a restarted daemon found to what its node file says: the old rows, or new tables.

The tables themselves tell what they hold, so a predecessor that was killed in the middle of a
reload is no special case: the difference is taken from what is there.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from fwd.control.apply import check_capacity, diff
from fwd.control.arena import Arena
from fwd.control.preflight import Held
from fwd.control.store import ARENA, TUNNEL
from fwd.control.sweep import purge
from fwd.control.world import World
from fwd.datapath.errors import DatapathError
from fwd.datapath.packet import PORT_HOST, PORT_NETDEV, PORT_OVERLAY
from fwd.datapath.pump import PumpLoop
from fwd.model.rows import MaglevRow
from fwd.netlink.host import HOST_DEVICE
from fwd.netlink.outside import NET_DEVICE
from fwd.netlink.tunnel import bound_to, open_tunnel_socket
from fwd.observe.log import get_logger

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from fwd.config.schema import NodeFile
    from fwd.control.endpoints import EndpointDevices
    from fwd.control.host import HostDevice
    from fwd.control.net import NetDevice
    from fwd.control.revive import Revived, StoredTap
    from fwd.datapath.binding import Datapath
    from fwd.model.rows import Address

__all__ = [
    "hand_over",
    "held_by",
    "read_world",
    "say",
    "start_pump",
    "take_socket",
    "take_tables",
]

_CHUNK = 512
"""Rows between turns of the loop: about a millisecond."""
_T = TypeVar("_T")


def say(revived: Revived) -> None:
    """Log what was noted before there was a log."""
    for level, event, details in revived.notes:
        getattr(get_logger(), level)(event, **({"details": details} if details else {}))
    revived.notes.clear()


def held_by(revived: Revived) -> Held:
    """Return what a preflight must not find taken."""
    devices = ((HOST_DEVICE, revived.host), (NET_DEVICE, revived.net))
    return Held(
        tunnel=bound_to(revived.tunnel) if revived.tunnel is not None else None,
        devices=frozenset(name for name, one in devices if one is not None),
        namespaces=frozenset(name.netns for name, _ in revived.pods),
    )


def hand_over(
    revived: Revived, devices: EndpointDevices, host: HostDevice | None, net: NetDevice | None
) -> None:
    """Give the devices to those who look after them from now on."""
    devices.adopt(revived.pods)
    for found, owner in ((revived.host, host), (revived.net, net)):
        if found is not None and owner is not None:
            owner.adopt(found)
        elif found is not None:
            _abandon(revived, found)
    revived.pods, revived.host, revived.net = [], None, None


def start_pump(revived: Revived, loop: PumpLoop, sock: socket.socket | None) -> None:
    """Move packets, if they do not move yet, and tell of devices that vanished meanwhile."""
    if sock is not None and not revived.tunnel_watched:
        loop.pump.add_udp(sock.fileno())
        revived.tunnel_watched = True
    if not revived.running:
        loop.start()
        revived.running = True
    while revived.gone:
        loop.tell_gone(revived.gone.pop())


def _abandon(revived: Revived, found: StoredTap) -> None:
    """Let go of a device of the host's on a node that does not own its host any more."""
    if found.watched and revived.pump is not None:
        port = PORT_NETDEV if found is revived.net else PORT_HOST
        revived.pump.pump.remove(port)
    revived.store.drop(found.name)
    found.tap.close()
    get_logger().warning("stored device dropped: node.ip is on a loopback device", name=found.name)


async def take_tables(revived: Revived, world: World) -> tuple[Arena, PumpLoop, World | None]:
    """Go on with the old tables where they can hold ``world``, else make new ones.

    Returns:
        The tables, what moves packets through them, and the rows they hold (None: nothing).

    Raises:
        DatapathError: new tables cannot be made.
    """
    arena, pump = revived.arena, revived.pump
    if arena is not None and pump is not None:
        old = await read_world(arena.dp, world.ip)
        try:
            check_capacity(arena.dp, diff(old, world).steps)
        except DatapathError as error:
            revived.forget_tables(str(error))
            say(revived)
        else:
            # a daemon killed before it had purged what an endpoint left must not leave it to this
            known = {row.addr for row in old.lxc}
            await purge(arena.dp, [row.addr for row in world.lxc if row.addr not in known])
            return arena, pump, old
    arena = revived.arena = Arena(world)
    revived.store.put(ARENA, arena.memory)
    pump = revived.pump = PumpLoop(arena.dp, lambda _punt: None, lambda _port: None)
    return arena, pump, None


async def take_socket(revived: Revived, node: NodeFile) -> socket.socket | None:
    """Return the tunnel's socket, the stored one if it has the right address; None = no tunnel.

    Raises:
        LinkError: a new one is needed and the port is taken.
    """
    old = revived.tunnel
    wanted = (node.node.ip, node.tunnel.port)
    vxlan = node.tunnel.protocol == "vxlan"
    if old is not None and not (vxlan and bound_to(old) == wanted):
        if revived.pump is not None:
            revived.pump.pump.remove(PORT_OVERLAY)
            revived.tunnel_watched = False
        revived.store.drop(TUNNEL)
        old.close()
        revived.tunnel = old = None
        await asyncio.to_thread(revived.store.settle)
    if old is None and vxlan:
        revived.tunnel = await open_tunnel_socket(*wanted)
        revived.store.put(TUNNEL, revived.tunnel.fileno())
    elif old is not None and revived.pump is not None and not revived.tunnel_watched:
        # the tables are new and the pump rests, but trains may wait in it: they need a reader who
        # takes them before UDP_GRO goes off
        revived.pump.pump.add_udp(old.fileno())
        revived.tunnel_watched = True
    return revived.tunnel


async def read_world(dp: Datapath, ip: Address) -> World:
    """Read back what the tables hold; names are not in them.

    Args:
        dp: the tables; packets may run meanwhile, changes of the tables may not.
        ip: the node's.
    """
    services = await _rows(dp.services())
    numbers = sorted({row.rev_nat_id for row in services})
    places = ((number, dp.maglev(number)) for number in numbers)
    policy = await _rows(dp.policies())
    return World(
        params=dp.params,
        settings=dp.settings,
        ip=ip,
        endpoints=await _rows(dp.endpoints()),
        lxc=await _rows(dp.lxcs()),
        ipcache=await _rows(dp.ipcache()),
        policy=tuple(replace(row, packets=0, bytes=0) for row in policy),
        peers=await _rows(dp.peers()),
        services=services,
        backends=await _rows(dp.backends()),
        source_ranges=await _rows(dp.source_ranges()),
        maglev=tuple(MaglevRow(number, backends) for number, backends in places if backends),
    )


async def _rows(rows: Iterable[_T]) -> tuple[_T, ...]:
    """Read a table without keeping packets waiting."""
    source = iter(rows)
    found: list[_T] = []
    while chunk := tuple(islice(source, _CHUNK)):
        found += chunk
        await asyncio.sleep(0)
    return tuple(found)
