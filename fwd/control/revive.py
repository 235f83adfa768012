"""The first thing a restarted daemon does: forward again, with what its predecessor left.

Descriptors come from the store by name. Tables, tunnel socket and TAPs that belong together go into
a pump at once; what the node file says is compared later (takeover.py). Nothing is believed: tables
are validated, devices asked what they are, and a pod's TAP is read only if the tables know its port
by the MAC and the ifindex it was made with. What cannot be used is let go of, and told.

Loads little, and nothing that reads YAML: packets wait meanwhile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwd.control.arena import Arena
from fwd.control.slow_ports import SlowPorts
from fwd.control.store import ARENA, TUNNEL, Store
from fwd.datapath.errors import AttachError
from fwd.datapath.packet import PORT_HOST, PORT_NETDEV
from fwd.datapath.pump import PumpLoop
from fwd.netlink.errors import LinkError
from fwd.netlink.tap import adopt_tap
from fwd.netlink.tunnel import adopt_tunnel_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from fwd.control.feeding import Feeding
    from fwd.netlink.tap import Tap

__all__ = ["HOST", "NET", "PodName", "Revived", "StoredTap", "revive"]

API = "api"
"""Name of the API's socket in fwd.socket."""
HOST = "host"
"""Name of cilium_host in the store; ``host-4-6`` with the families it routes for pods."""
NET = "net"
_NAME_PARTS = 6


@dataclass(frozen=True, slots=True)
class PodName:
    """What the name of a pod's TAP in the store tells: whose it is, and what it was made like."""

    lxc_id: int
    ifindex: int
    mac: bytes
    netns: int
    """Inode of the pod's namespace."""
    digest: str
    """Of everything it was made with (``EndpointDevice.digest``)."""

    def __str__(self) -> str:
        """Return the name."""
        return f"pod-{self.lxc_id}-{self.ifindex}-{self.mac.hex()}-{self.netns}-{self.digest}"

    @classmethod
    def parse(cls, text: str) -> PodName | None:
        """Read a name; None when it is none of a pod's TAP."""
        parts = text.split("-")
        if len(parts) != _NAME_PARTS or parts[0] != "pod":
            return None
        try:
            lxc_id, ifindex, netns = (int(parts[i]) for i in (1, 2, 4))
            return cls(lxc_id, ifindex, bytes.fromhex(parts[3]), netns, parts[5])
        except ValueError:
            return None


@dataclass(slots=True)
class StoredTap:
    """A device of the daemon before."""

    name: str
    """In the store."""
    tap: Tap
    watched: bool = False
    """The pump reads it."""


@dataclass(slots=True)
class Revived:
    """What there is again; all of it empty at a first start."""

    store: Store
    arena: Arena | None = None
    pump: PumpLoop | None = None
    """There with ``arena``; it runs."""
    running: bool = False
    """The pump moves packets."""
    api: int = -1
    """The API's listening socket, where the manager has made it; no part of what is stored."""
    tunnel: socket.socket | None = None
    tunnel_watched: bool = False
    pods: list[tuple[PodName, StoredTap]] = field(default_factory=list)
    host: StoredTap | None = None
    net: StoredTap | None = None
    gone: list[int] = field(default_factory=list)
    """Ports whose device has vanished since."""
    notes: list[tuple[str, str, str]] = field(default_factory=list)
    """Level, event and details for the log, which is not loaded yet."""
    feeding: Feeding | None = None
    """Keeps the watchdog fed until the daemon has started."""

    @property
    def found(self) -> bool:
        """Whether a daemon before has left anything."""
        return bool(self.arena or self.tunnel or self.pods or self.host or self.net)

    def refuse(self, name: str, fd: int, why: str) -> None:
        """Let go of a descriptor that cannot be used, here and in the store."""
        self.store.drop(name)
        os.close(fd)
        self.notes.append(("warning", f"stored descriptor {name} dropped", why))

    def forget_tables(self, why: str) -> None:
        """Stop forwarding with the old tables and let go of them; devices and socket are kept."""
        if self.pump is not None:
            self.pump.close()
        if self.arena is not None:
            self.arena.close()
        self.store.drop(ARENA)
        self.arena = self.pump = None
        self.running = self.tunnel_watched = False
        for one in self.taps():
            one.watched = False
        self.notes.append(("warning", "tables are made anew, connections are forgotten", why))

    def taps(self) -> list[StoredTap]:
        """Return all devices."""
        return [tap for _, tap in self.pods] + [one for one in (self.host, self.net) if one]

    def close(self) -> None:
        """Stop forwarding and close our descriptors of it all; the store's stay."""
        if self.feeding is not None:
            self.feeding.stop()
        if self.pump is not None:
            self.pump.close()
        if self.arena is not None:
            self.arena.close()
        if self.tunnel is not None:
            self.tunnel.close()
        for one in self.taps():
            one.tap.close()
        self.arena = self.pump = self.tunnel = None
        self.running = self.tunnel_watched = False
        self.pods, self.host, self.net = [], None, None


def revive(given: Mapping[str, list[int]], store: Store) -> Revived:
    """Take over what the store has given back; when it returns, packets move again.

    Needs a running event loop.

    Args:
        given: name to descriptors, as ``listen_fds.take`` returns them; all become ours.
        store: where they are kept.
    """
    revived = Revived(store)
    arenas: list[int] = []
    for name, fds in given.items():
        if name == API:
            revived.api = fds[0]
            continue
        store.names.add(name)
        if name == ARENA:
            arenas = fds
            continue
        _keep_first(revived, name, fds)
        _adopt(revived, name, fds[0])
    if len(arenas) == 1:
        _attach(revived, arenas[0])
    elif arenas:  # a name has one meaning: none is more true than the others
        for fd in arenas:
            os.close(fd)
        revived.forget_tables("the store has more than one arena")
    if revived.arena is None and revived.found and not arenas:
        text = "tables are made anew, connections are forgotten"
        revived.notes.append(("warning", text, "the store has devices but no tables"))
    _run(revived)
    return revived


def _keep_first(revived: Revived, name: str, fds: list[int]) -> None:
    """Let go of all but the first; the store knows only how to drop all of a name."""
    for fd in fds[1:]:
        revived.refuse(name, fd, "there is another one of that name")
    if fds[1:]:
        revived.store.put(name, fds[0])


def _adopt(revived: Revived, name: str, fd: int) -> None:
    kind = name.partition("-")[0]
    pod = PodName.parse(name)
    try:
        if kind == TUNNEL:
            sock = adopt_tunnel_socket(fd)
        else:
            one = StoredTap(name, adopt_tap(fd))
    except LinkError as error:
        revived.refuse(name, fd, str(error))
        return
    if kind == TUNNEL and revived.tunnel is None:
        revived.tunnel = sock
    elif pod is not None:
        revived.pods.append((pod, one))
    elif kind == HOST and revived.host is None:
        revived.host = one
    elif kind == NET and revived.net is None:
        revived.net = one
    else:
        if kind == TUNNEL:
            sock.detach()
        revived.refuse(name, fd, "nobody knows what it is, or there is another one")


def _attach(revived: Revived, fd: int) -> None:
    try:
        revived.arena, torn = Arena.adopt(fd)
    except AttachError as error:
        revived.refuse(ARENA, fd, str(error))
        text = "tables are made anew, connections are forgotten"
        revived.notes.append(("warning", text, "the stored ones cannot be used"))
    else:
        revived.notes.append(("info", "tables taken over", f"{torn} half-written entries dropped"))


def _run(revived: Revived) -> None:
    """Forward with the old tables: what belongs to them, and nothing else."""
    if revived.arena is None:
        return
    dp = revived.arena.dp
    rows = {row.lxc_id: row for row in dp.endpoints()}
    loop = PumpLoop(dp, SlowPorts.of(rows.values(), dp.lxcs()).answer, revived.gone.append)
    revived.pump = loop
    for port, one in ((PORT_HOST, revived.host), (PORT_NETDEV, revived.net)):
        if one is not None:
            _watch(loop, port, one)
    running: set[int] = set()
    for pod, one in revived.pods:
        row = rows.get(pod.lxc_id)
        known = row is not None and (row.mac, row.ifindex) == (pod.mac, pod.ifindex)
        if known and pod.lxc_id not in running:
            running.add(pod.lxc_id)
            _watch(loop, pod.lxc_id, one)
    if revived.tunnel is not None:
        loop.pump.add_udp(revived.tunnel.fileno())
        revived.tunnel_watched = True
    loop.start()
    revived.running = True


def _watch(loop: PumpLoop, port: int, one: StoredTap) -> None:
    loop.pump.add_tap(port, one.tap.fd, one.tap.vnet_hdr_size)
    one.watched = True
