"""What a host and its node file need, looked at one by one: `fwd doctor`.

Unlike preflight.py it goes on after a failure, runs beside a living daemon, and asks also what a
start does not depend on. It changes nothing; two scratch sockets, a scratch TAP and, to each peer,
a few echo requests and one empty datagram are all it makes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fwd.config.load import ConfigError
from fwd.control.node_source import sources
from fwd.control.preflight import pod_mtu
from fwd.control.runner import DOOR_VARIABLE, UNIT, refused
from fwd.netlink.door import DOOR_SOCKET, check_rights, door_answers
from fwd.netlink.echo import HEADERS_SIZE, probe_way
from fwd.netlink.errors import LinkError
from fwd.netlink.link import device_of, vxlan_owner
from fwd.netlink.netns import open_namespace
from fwd.netlink.offload import TAP_CSUM, TAP_TSO, TAP_USO, probe_tap, probe_udp
from fwd.netlink.owner import udp_owner
from fwd.netlink.tap import TUN_DEVICE, check_tun_device, open_tap
from fwd.netlink.tunnel import route_mtu

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fwd.config.schema import NodeFile, PeerSection
    from fwd.control.runner import Runner
    from fwd.netlink.link import Device

__all__ = ["Finding", "examine", "readable"]

_ECHO_S = 1.0
"""How long a peer has to answer."""
_DOOR_S = 10.0
"""What a door has to answer that is started only then."""
_ASKED_AT_ONCE = 128
"""Peers; each takes a thread that waits."""
_OVERHEAD = 50
"""Bytes that VXLAN puts around a pod's packet."""
_CLOCKSOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
_SLOW_CLOCKS = frozenset({"hpet", "acpi_pm", "jiffies", "refined-jiffies"})
_TIME_ERROR = 5
"""adjtimex(2): nobody keeps the clock right."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    level: Literal["ok", "warn", "fail"]
    """fail: packets do not flow; warn: they do, with something missing or slow."""
    text: str
    """What was found and, unless all is well, what to do."""


async def examine(
    node: NodeFile, *, running: bool | None, runner: Runner | None = None
) -> AsyncIterator[Finding]:
    """Look at everything, in the order in which one thing rests on another.

    Args:
        node: what the host is to serve.
        running: its daemon answers: what a daemon has taken is fine then; None = cannot be told.
        runner: whose rights count; None = the caller's.
    """
    if runner is None:
        yield _judge("tun device", check_tun_device, f"{TUN_DEVICE} opens")
        yield _judge("rights", check_rights, "devices can be made, namespaces entered")
    else:
        yield await asyncio.to_thread(_tun_device, runner)
        yield await asyncio.to_thread(_rights, runner, running)
    device = await device_of(node.node.ip)
    yield _address(node, device)
    if device is not None:
        if node.tunnel.protocol == "vxlan":
            yield await _port(node, running=running)
        yield _mtu(node, device)
        for finding in await asyncio.to_thread(_offloads, node):
            yield finding
    for finding in _namespaces(node):
        yield finding
    if node.features.masquerade:
        yield _masquerade()
    if device is not None:
        for finding in await _peers(node, device, running=running):
            yield finding
    yield _clock()


def readable(node: NodeFile, runner: Runner) -> Finding | None:
    """Tell when the daemon's user may not read the node file and all it names; None = all well."""
    what, user = "node file", runner.user
    if runner.uid < 0:
        return Finding(what, "fail", f"{UNIT} runs as user {user}, who is not: `systemd-sysusers`")
    files = refused(runner, "r", sources(node))
    if files is None:
        return Finding(what, "warn", f"cannot tell whether user {user} may read it: run as root")
    if not files:
        return None
    text = f"user {user}, who runs the daemon, may not read {files[0]}"
    more = f" and {len(files) - 1} more" if files[1:] else ""
    return Finding(what, "fail", f"{text}{more}: `chmod o+r` it, and `o+x` its directories")


def _tun_device(runner: Runner) -> Finding:
    mine = _judge("tun device", check_tun_device, f"{TUN_DEVICE} opens for user {runner.user}")
    if mine.level == "fail":
        return mine
    closed = refused(runner, "rw", [TUN_DEVICE])
    if closed is None:
        text = f"cannot tell whether {TUN_DEVICE} opens for user {runner.user}: run as root"
        return Finding(mine.what, "warn", text)
    if closed:
        text = f"{TUN_DEVICE} does not open for user {runner.user}: `chmod 0666 {TUN_DEVICE}`"
        return Finding(mine.what, "fail", text)
    return mine


def _rights(runner: Runner, running: bool | None) -> Finding:
    """Judge what the daemon has itself, and the door that has the rest."""
    user, door = runner.user, runner.environ.get(DOOR_VARIABLE) or DOOR_SOCKET
    if "cap_net_admin" not in runner.capabilities:
        return Finding("rights", "fail", f"{user}: give {UNIT} AmbientCapabilities=CAP_NET_ADMIN")
    if "cap_sys_admin" in runner.capabilities:
        return Finding("rights", "ok", f"user {user} makes devices and enters namespaces")
    if not Path(door).is_socket():
        if running is False and door == DOOR_SOCKET:
            return Finding("rights", "warn", f"there is no door at {door} yet: {UNIT} starts it")
        problem = f"there is no door at {door} to enter namespaces by"
    elif refused(runner, "w", [Path(door)]):
        problem = f"user {user} may not use the door at {door}"
    elif not door_answers(door, _DOOR_S):
        problem = f"nobody answers at the door {door}"
    else:
        return Finding("rights", "ok", f"user {user} makes devices, the door enters namespaces")
    advice = "`systemctl enable --now fwd-door.socket`, see `systemctl status fwd-door`"
    return Finding("rights", "fail", f"{problem}: {advice}")


def _judge(what: str, check: Callable[[], None], fine: str) -> Finding:
    try:
        check()
    except LinkError as error:
        return Finding(what, "fail", str(error))
    return Finding(what, "ok", fine)


def _address(node: NodeFile, device: Device | None) -> Finding:
    ip = node.node.ip
    if device is None:
        text = f"{ip} is on no device: correct node.ip, or `ip addr add {ip} dev DEVICE`"
        return Finding("underlay", "fail", text)
    return Finding("underlay", "ok", f"{ip} is on {device.name}")


async def _port(node: NodeFile, *, running: bool | None) -> Finding:
    what, port = "tunnel port", node.tunnel.port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((str(node.node.ip), port))
        except OSError as error:
            reason = str(error.strerror)
        else:
            if running:
                return Finding(
                    what, "warn", f"a daemon answers, yet UDP {port} is free: another's?"
                )
            return Finding(what, "ok", f"UDP {port} is free")
    owner = await asyncio.to_thread(udp_owner, port)
    if running:
        return Finding(what, "ok", f"UDP {port} is the daemon's" + (f", {owner}" if owner else ""))
    if running is None:
        by = owner or "systemd, or the kernel"
        return Finding(what, "warn", f"UDP {port} is held by {by}: the silent daemon's?")
    device = None if owner else await vxlan_owner(port)
    who = owner or (f"the kernel's VXLAN device {device}" if device else None)
    if who is None:
        return Finding(what, "fail", f"UDP {port} cannot be had: {reason}, see `ss -lunp`")
    return Finding(what, "fail", f"UDP {port} is owned by {who}: stop it, or set tunnel.port")


def _mtu(node: NodeFile, device: Device) -> Finding:
    what, overhead = "mtu", _overhead(node)
    try:
        mtu = pod_mtu(node, device)
    except ConfigError as error:
        return Finding(what, "fail", str(error))
    if mtu + overhead > device.mtu:
        text = (
            f"pods have {mtu}, {device.name} carries {device.mtu - overhead}: packets leave in "
            f"fragments; set tunnel.mtu to auto, or `ip link set {device.name} mtu "
            f"{mtu + overhead}`"
        )
        return Finding(what, "warn", text)
    return Finding(what, "ok", f"pods have {mtu}, {device.name} has {device.mtu}")


def _overhead(node: NodeFile) -> int:
    return _OVERHEAD if node.tunnel.protocol == "vxlan" else 0


def _offloads(node: NodeFile) -> Iterator[Finding]:
    try:
        tap = open_tap()
    except LinkError as error:
        yield Finding("tap offloads", "fail", str(error))
    else:
        try:
            able = probe_tap(tap.fd, tap.vnet_hdr_size)
        finally:
            tap.close()
        yield _lacking(
            "tap offloads",
            {"csum": able & TAP_CSUM, "tso": able & TAP_TSO, "uso": able & TAP_USO},
            "uso needs Linux 6.2",
        )
    try:
        udp = probe_udp(node.node.ip)
    except OSError as error:
        yield Finding("udp offloads", "fail", f"{node.node.ip}: {error.strerror}")
        return
    able_udp = {"udp_segment": udp.segments, "udp_gro": int(udp.gro)}
    yield _lacking("udp offloads", able_udp, "they need Linux 5.0; is lo up?")


def _lacking(what: str, able: dict[str, int], hint: str) -> Finding:
    there = ", ".join(name for name, value in able.items() if value) or "none"
    lacking = [name for name, value in able.items() if not value]
    if lacking:
        text = f"{there}; without {', '.join(lacking)} large packets cost more ({hint})"
        return Finding(what, "warn", text)
    return Finding(what, "ok", there)


def _namespaces(node: NodeFile) -> Iterator[Finding]:
    for endpoint in node.endpoints:
        what = f"pod {endpoint.name}"
        if endpoint.netns is None:
            yield Finding(what, "fail", "has no netns: name its network namespace")
            continue
        try:
            os.close(open_namespace(endpoint.netns))
        except LinkError as error:
            yield Finding(what, "fail", str(error))
        else:
            yield Finding(what, "ok", f"namespace {endpoint.netns} is there")


def _masquerade() -> Finding:
    if shutil.which("nft") is None:
        return Finding("masquerade", "fail", "nft is missing: `apt install nftables`")
    return Finding("masquerade", "ok", "nft is there")


async def _peers(node: NodeFile, device: Device, *, running: bool | None) -> list[Finding]:
    """Ask all peers side by side."""
    try:
        size = min(pod_mtu(node, device) + _overhead(node), device.mtu)
    except ConfigError:
        size = HEADERS_SIZE  # said already

    def ask(peer: PeerSection) -> Finding:
        return _peer(node, peer, size, running=running)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(_ASKED_AT_ONCE, "fwd-doctor") as threads:
        asked = (loop.run_in_executor(threads, ask, peer) for peer in node.peers)
        return list(await asyncio.gather(*asked))


def _peer(node: NodeFile, peer: PeerSection, size: int, *, running: bool | None) -> Finding:
    """Ask a peer's kernel: is it there, do full packets reach it, has anybody its tunnel port?

    Of two hosts that are being set up one is the first: its peer fails only beside a daemon.
    """
    what, ip = f"peer {peer.name}", str(peer.ip)
    try:
        if node.tunnel.protocol == "vxlan" and _port_refused(str(node.node.ip), ip, node):
            text = f"{ip} is there, but nobody has UDP {node.tunnel.port}: start its daemon"
            return Finding(what, "fail" if running else "warn", text)
        way = probe_way(node.node.ip, peer.ip, size, _ECHO_S)
    except OSError as error:
        return Finding(what, "fail", f"{ip}: {error.strerror}: see `ip route get {ip}`")
    if way is None:
        return Finding(what, "warn", f"{ip}: cannot tell, an echo request takes root or ping_group")
    if not way.small:
        text = f"{ip} does not answer echo requests: cannot tell a host down from a firewall (ICMP)"
        return Finding(what, "warn", text)
    if not way.whole:
        return _narrow(node, peer, size, cut=way.cut)
    text = f"{ip} answers echo requests of up to {size} bytes"
    if node.tunnel.protocol == "vxlan":
        port = node.tunnel.port
        text += f"; UDP {port} is not refused (whether a firewall swallows it cannot be told)"
    return Finding(what, "ok", text)


def _narrow(node: NodeFile, peer: PeerSection, size: int, *, cut: bool) -> Finding:
    """Tell of a way that small packets pass and one of ``size`` bytes does not pass whole."""
    mtu = route_mtu(node.node.ip, peer.ip)  # what a router has said meanwhile
    known = mtu is not None and mtu < size
    where = f"the way takes {mtu}" if known else f"`tracepath -n {peer.ip}` finds where"
    advice = f"set tunnel.mtu to {mtu - _overhead(node)}" if mtu and known else "lower tunnel.mtu"
    text = f"{peer.ip} answers small echo requests, one of {size} bytes"
    if cut:
        text += f" in fragments only, as pods' full packets will travel ({where}): {advice}"
        return Finding(f"peer {peer.name}", "warn", text)
    text += f" is not answered: pods' full packets get lost, there or back ({where}): {advice}"
    return Finding(f"peer {peer.name}", "fail", text)


def _port_refused(source: str, ip: str, node: NodeFile) -> bool:
    """Tell whether the peer's kernel says that nobody listens on the tunnel port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.connect((ip, node.tunnel.port))
        sock.settimeout(_ECHO_S / 2)
        sock.send(b"")  # no packet of VXLAN: the peer counts it as malformed
        try:
            sock.recv(1)
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False
    return False


def _clock() -> Finding:
    source = _CLOCKSOURCE.read_text().strip() if _CLOCKSOURCE.exists() else "unknown"
    if source in _SLOW_CLOCKS:
        text = f"clock source {source} costs every packet a system call; boot with clocksource=tsc"
        return Finding("clock", "warn", text)
    # Bigger than struct timex; zeros ask and change nothing.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == _TIME_ERROR:
        text = f"{source}; nobody keeps it right (chrony, systemd-timesyncd): only logs suffer"
        return Finding("clock", "warn", text)
    return Finding("clock", "ok", f"{source}, kept right")
