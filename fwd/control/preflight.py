"""Everything a start needs, proven before anything is made. Reads only; leaves nothing open.

Errors about the node file are ``ConfigError`` with file and line, ``UnmetError`` where it is right
and the host lacks what it asks for; errors about the machine are ``LinkError``. All say what to do.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwd.config.load import ConfigError
from fwd.netlink.door import check_rights
from fwd.netlink.errors import LinkError
from fwd.netlink.host import HOST_DEVICE, check_free
from fwd.netlink.link import Device, check_pod_namespace, device_of
from fwd.netlink.netns import open_namespace
from fwd.netlink.nft import check_nft
from fwd.netlink.outside import NET_DEVICE, check_reverse_path, check_uplink
from fwd.netlink.tap import check_tun_device
from fwd.netlink.tunnel import open_tunnel_socket, route_mtu

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fwd.config.schema import EndpointSection, NodeFile
    from fwd.model.rows import Address

__all__ = [
    "Held",
    "UnmetError",
    "at_line",
    "check_endpoints",
    "check_host",
    "check_outside",
    "check_start",
    "has_host",
    "narrow_ways",
    "pod_mtu",
]

_OVERHEAD = 50
"""Bytes VXLAN over IPv4 adds to an inner IP datagram (datapath reference 6.2)."""
_MTU_MIN = 576


class UnmetError(ConfigError):
    """The node file asks for what this host does not have, or not yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is ours already, from a daemon before, and so is not taken."""

    tunnel: tuple[Address, int] | None = None
    devices: frozenset[str] = frozenset()
    """Names of those in the daemon's own namespace."""
    namespaces: frozenset[int] = frozenset()
    """Inodes of those with a device of ours."""


async def check_start(node: NodeFile, held: Held = Held()) -> Device:
    """Prove that a daemon can start with this node file.

    Returns:
        The device that carries the node's underlay address.

    Raises:
        ConfigError: the file asks for what this host does not have.
        LinkError: the host or our rights lack something.
    """
    await asyncio.to_thread(check_rights)
    check_tun_device()
    device = await _own_device(node, "ip", node.node.ip)
    pod_mtu(node, device)
    wanted = (node.node.ip, node.tunnel.port)
    if node.tunnel.protocol == "vxlan" and held.tunnel != wanted:
        try:
            (await open_tunnel_socket(*wanted)).close()
        except LinkError as error:
            line = node.tunnel.line or node.node.line
            raise at_line(node, line, f"tunnel: {error}", UnmetError) from None
    await check_endpoints(node, node.endpoints, held)
    if has_host(device):
        await check_host(node, device, held)
    return device


async def _own_device(node: NodeFile, key: str, address: Address) -> Device:
    device = await device_of(address)
    if device is None:
        text = (
            f"node.{key}: {address} is on no device of this host: correct it, or "
            f"`ip addr add {address} dev DEVICE`"
        )
        raise at_line(node, node.node.line, text, UnmetError)
    return device


def has_host(device: Device) -> bool:
    """Tell whether a node on this underlay device is the host's only one and serves its stack.

    Several nodes may share a host over its loopback, as labs do: none of them owns the host then.
    """
    return device.name != "lo"


async def check_host(node: NodeFile, uplink: Device, held: Held = Held()) -> None:
    """Prove that the host's devices can be made, and pods masqueraded or reached if they shall be.

    Args:
        node: what is asked for.
        uplink: the device that traffic from outside comes by.
        held: what is ours.

    Raises:
        ConfigError: not here, and why.
    """
    features = node.features
    if features.masquerade and not node.node.router_ip:
        text = "features.masquerade: pods reach the host by node.router_ip, set it"
        raise at_line(node, node.node.line, text)
    if node.node.ip6 is not None:
        await _own_device(node, "ip6", node.node.ip6)
    try:
        if node.node.router_ip and HOST_DEVICE not in held.devices:
            await check_free(HOST_DEVICE)
        if features.masquerade:
            check_nft()
    except LinkError as error:
        raise at_line(node, node.node.line, str(error), UnmetError) from None
    if features.nodeport:
        await check_outside(node, uplink, held)


async def check_outside(node: NodeFile, uplink: Device, held: Held = Held()) -> None:
    """Prove that services can be reached from outside.

    Args:
        node: asks for it.
        uplink: the device that traffic from outside comes by.
        held: what is ours.

    Raises:
        ConfigError: not here, and why.
    """
    line = node.features.line or node.node.line
    if not any(router.version == 4 for router in node.node.router_ip):
        text = "features.nodeport: clients outside hide behind an IPv4 node.router_ip, set it"
        raise at_line(node, line, text)
    try:
        check_nft()
        if NET_DEVICE not in held.devices:
            await check_free(NET_DEVICE)
        check_uplink(uplink)
        check_reverse_path()
    except LinkError as error:
        raise at_line(node, line, f"features.nodeport: {error}", UnmetError) from None


async def check_endpoints(
    node: NodeFile,
    endpoints: Iterable[EndpointSection],
    held: Held = Held(),
) -> None:
    """Prove that each endpoint has a namespace of its own that is free for it.

    Raises:
        ConfigError: one has not; the text names its line.
    """
    wanted = list(endpoints)
    if wanted:
        try:
            await asyncio.to_thread(check_rights)  # the door may have gone to sleep
        except LinkError as error:
            text = f"endpoint {wanted[0].name}: {error}"
            raise _at_endpoint(node, wanted[0], text, UnmetError) from None
    taken: dict[tuple[int, int], str] = {}
    for endpoint in wanted:
        namespace = endpoint.netns
        if namespace is None:
            raise _at_endpoint(
                node,
                endpoint,
                f"endpoint {endpoint.name}: netns is missing: name the pod's network namespace",
            )
        try:
            where = await _check_namespace(endpoint.name, namespace, held)
        except LinkError as error:
            raise _at_endpoint(node, endpoint, str(error), UnmetError) from None
        if where in taken:
            raise _at_endpoint(
                node,
                endpoint,
                f"endpoint {endpoint.name}: namespace {namespace} is {taken[where]}'s already: "
                "give each endpoint its own",
            )
        taken[where] = endpoint.name


def pod_mtu(node: NodeFile, device: Device) -> int:
    """Return the MTU of pods in bytes: as written, else the underlay's less the overhead.

    Raises:
        ConfigError: the underlay's MTU leaves too little.
    """
    if node.tunnel.mtu != "auto":
        return node.tunnel.mtu
    overhead = _OVERHEAD if node.tunnel.protocol == "vxlan" else 0
    mtu = min(device.mtu, 65535) - overhead  # loopback's MTU is larger than a datagram can be
    if mtu < _MTU_MIN:
        raise at_line(
            node,
            node.tunnel.line or node.node.line,
            f"tunnel.mtu: {device.name} has MTU {device.mtu}, which leaves pods {mtu} bytes: "
            f"`ip link set {device.name} mtu {_MTU_MIN + overhead}` or more",
            UnmetError,
        )
    return mtu


def narrow_ways(node: NodeFile, mtu: int) -> Iterator[str]:
    """Tell which peers full packets of pods reach in fragments only.

    Args:
        node: the node file.
        mtu: of its pods, bytes.

    Yields:
        One warning a peer, with what to do.
    """
    if node.tunnel.protocol != "vxlan":
        return
    for peer in node.peers:
        way = route_mtu(node.node.ip, peer.ip)
        if way is not None and way < mtu + _OVERHEAD:
            yield (
                f"tunnel.mtu: the way to peer {peer.name} ({peer.ip}) takes {way} bytes, full "
                f"packets of pods need {mtu + _OVERHEAD} and will travel in fragments: write "
                f"tunnel.mtu: {way - _OVERHEAD}"
            )


def at_line(
    node: NodeFile, line: int, text: str, kind: type[ConfigError] = ConfigError
) -> ConfigError:
    """Make an error about one line of the node file."""
    return kind(f"{node.place(line)}: {text}")


def _at_endpoint(
    node: NodeFile, endpoint: EndpointSection, text: str, kind: type[ConfigError] = ConfigError
) -> ConfigError:
    """Make an error about an endpoint, which may stand in a manifest."""
    file, line = endpoint.file, endpoint.line
    return kind(f"{f'{file}:{line}' if file else node.place(line)}: {text}")


async def _check_namespace(pod: str, namespace: str, held: Held) -> tuple[int, int]:
    try:
        fd = open_namespace(namespace)
    except LinkError as error:
        raise LinkError(f"endpoint {pod}: {error}") from None
    try:
        stat = os.fstat(fd)
        if stat.st_ino not in held.namespaces:
            await check_pod_namespace(fd, pod, namespace)
    finally:
        os.close(fd)
    return stat.st_dev, stat.st_ino
