"""Traffic from outside: cilium_net, the TAP that services' frames are steered to, and the steering.

Frames to the frontends leave the uplink's ingress for cilium_net before the host's stack sees them;
what the datapath writes there comes in by cilium_net as if from a wire, and the host routes it. Two
nftables tables of one name do it, loaded and replaced as a whole, so that what a killed daemon left
is no trouble: until then its frames go to a device that is gone, and are dropped. IPv4 only, all in
the daemon's own network namespace. docs/decisions.md says why it is not tc.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pyroute2.netlink.exceptions import NetlinkError

from fwd.netlink.door import write_sysctl
from fwd.netlink.errors import LinkError
from fwd.netlink.link import gso_max_size
from fwd.netlink.nft import load_rules
from fwd.netlink.shim import open_route

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwd.netlink.link import Device
    from fwd.netlink.shim import LoopIPRoute

__all__ = [
    "NET_DEVICE",
    "TABLE",
    "NetShape",
    "Steering",
    "Target",
    "allow_forwarding",
    "check_reverse_path",
    "check_uplink",
    "shape_net",
    "steer",
    "steering_rules",
    "stop_steering",
]

NET_DEVICE = "cilium_net"
TABLE = "fwd_outside"
Target: TypeAlias = tuple[IPv4Address, str, int]
"""Address, ``tcp``, ``udp`` or ``sctp``, and port."""

_CONF = Path("/proc/sys/net/ipv4/conf")
_TX_QUEUE_LEN = 4096
_ADDRESS = "169.254.42.2"
"""Set as /32 of scope host, for nobody to use: with ``rp_filter`` 2 the kernel lets pass what comes
by a device only if the device has some address. The hairpin's own is beside it."""
_SCOPE_HOST = 254
_IFF_UP = 0x1
_IFF_NOARP = 0x80
_STRICT = "1"
_NAT_PORT_MIN = 32768
"""As in csrc/tables/nat.h."""
_PROTOS = {"tcp": 6, "udp": 17, "sctp": 132}


@dataclass(frozen=True, slots=True)
class NetShape:
    """What cilium_net is to look like."""

    mac: bytes
    mtu: int
    """The uplink's, bytes of an IP datagram."""


@dataclass(frozen=True, slots=True)
class Steering:
    """Which frames of the uplink are the datapath's."""

    uplink: str
    """The device that carries ``node_ip``."""
    node_ip: IPv4Address
    frontends: frozenset[Target]
    """Frames to them, and ICMP errors about what came from them."""
    answers: frozenset[Target]
    """Backends on no node: frames from them to the node's ports where clients are hidden."""
    inside: frozenset[IPv4Network] = frozenset()
    """Sources nobody outside has, and who says so is not believed: they are left to the host."""


def check_uplink(device: Device) -> None:
    """Prove that frames of the uplink fit a TAP.

    Raises:
        LinkError: they have no Ethernet header.
    """
    if len(device.mac) != 6:
        raise LinkError(
            f"{device.name} is no Ethernet device, so services cannot be reached by it: turn it "
            "off, or give node.ip to another device"
        )


def check_reverse_path() -> None:
    """Prove that the kernel will route what comes by cilium_net.

    Raises:
        LinkError: it wants everybody's source to be reached by the device it came from.
    """
    if (_CONF / "all/rp_filter").read_text().strip() == _STRICT:
        raise LinkError(
            "net.ipv4.conf.all.rp_filter is 1, which drops the answers to "
            "clients: `sysctl -w net.ipv4.conf.all.rp_filter=2` (or 0)"
        )


async def shape_net(shape: NetShape) -> None:
    """Give the device, just made or not, this shape.

    Raises:
        LinkError: the kernel refused a step; the text names it.
    """
    # In a thread with a loop of its own: the kernel takes its time, and packets must not wait.
    await asyncio.to_thread(lambda: asyncio.run(_shape(shape)))


def allow_forwarding() -> None:
    """Let the kernel route what comes by cilium_net, and no other device's.

    A change of ``net.ipv4.ip_forward`` sets all devices' switches, so this has to follow one.

    Raises:
        LinkError: /proc/sys cannot be written.
    """
    for key, text in (("accept_local", "1"), ("rp_filter", "0"), ("forwarding", "1")):
        try:
            write_sysctl(_CONF / NET_DEVICE / key, text)
        except OSError as error:
            raise LinkError(
                f"{NET_DEVICE}: setting net.ipv4.conf.{NET_DEVICE}.{key} to {text}: "
                f"{error.strerror}; /proc/sys must be writable for answers to be routed"
            ) from None


async def steer(steering: Steering) -> None:
    """Give the datapath these frames and no others, from one packet to the next.

    Raises:
        LinkError: the kernel or nft refused; nothing was changed.
    """
    what = f"steering {len(steering.frontends)} frontends from {steering.uplink} to {NET_DEVICE}"
    await load_rules(steering_rules(steering), what)


async def stop_steering() -> None:
    """Leave all frames to the host; no tables are fine.

    Raises:
        LinkError: the kernel or nft refused.
    """
    await load_rules(_without_tables(), f"removing nftables tables {TABLE}")


def steering_rules(steering: Steering) -> str:
    """Return what ``nft -f`` shall read.

    Later fragments have no ports: they follow their first, for 15 s, if it came before them. What
    came from outside has been seen by no conntrack, so its answers are none of conntrack's, either.
    """
    to = f'fwd to "{NET_DEVICE}"'
    target = "ip daddr . ip protocol . th dport @frontends"
    fragment = "ip saddr . ip daddr . ip protocol . ip id"
    quote = "    @th,64,8 0x45 @th,136,8"
    errors = [
        f"{quote} {_PROTOS[proto]} @th,160,32 {int(address):#x} @th,224,16 {port} {to}\n"
        for address, proto, port in sorted(steering.frontends)
    ]
    errors += [
        f"{quote} {_PROTOS[proto]} @th,160,32 {int(steering.node_ip):#x} "
        f"@th,192,32 {int(address):#x} @th,240,16 {port} {to}\n"
        for address, proto, port in sorted(steering.answers)
    ]
    return _without_tables() + (
        f"table netdev {TABLE} {{\n"
        f"{_set('frontends', steering.frontends)}"
        f"{_set('answers', steering.answers)}"
        f"{_networks('inside', steering.inside)}"
        "  set fragments {\n"
        f"    typeof {fragment}\n"
        "    flags dynamic,timeout; timeout 15s; size 8192;\n"
        "  }\n"
        "  chain errors {\n"  # who quotes a packet of ours: its header is behind the ICMP one
        f"{''.join(errors)}"
        "  }\n"
        "  chain ingress {\n"
        f'    type filter hook ingress device "{steering.uplink}" priority filter; '
        "policy accept;\n"
        "    ether type { 0x8100, 0x88a8 } accept\n"
        "    ip saddr @inside accept\n"
        f"    ip frag-off & 0x1fff != 0 {fragment} @fragments {to}\n"
        f"    {target} ip frag-off & 0x2000 != 0 update @fragments {{ {fragment} }}\n"
        f"    {target} {to}\n"
        f"    ip daddr {steering.node_ip} ip saddr . ip protocol . th sport @answers "
        f"th dport >= {_NAT_PORT_MIN} {to}\n"
        "    icmp type { destination-unreachable, time-exceeded } goto errors\n"
        "  }\n"
        "}\n"
        f"table ip {TABLE} {{\n"
        "  chain prerouting {\n"
        "    type filter hook prerouting priority raw; policy accept;\n"
        f'    iifname "{NET_DEVICE}" notrack\n'
        "  }\n"
        "}\n"
    )


def _set(name: str, targets: Iterable[Target]) -> str:
    elements = ", ".join(f"{a} . {proto} . {port}" for a, proto, port in sorted(targets))
    return (
        f"  set {name} {{\n"
        "    type ipv4_addr . inet_proto . inet_service\n"
        f"{elements and f'    elements = {{ {elements} }}'}\n"
        "  }\n"
    )


def _networks(name: str, networks: Iterable[IPv4Network]) -> str:
    elements = ", ".join(map(str, sorted(networks)))
    return (
        f"  set {name} {{\n"
        "    type ipv4_addr; flags interval; auto-merge\n"
        f"{elements and f'    elements = {{ {elements} }}'}\n"
        "  }\n"
    )


def _without_tables() -> str:
    """Removing what is not there is an error, so it is made first."""
    steps = [(verb, family) for family in ("netdev", "ip") for verb in ("add", "delete")]
    return "".join(f"{verb} table {family} {TABLE}\n" for verb, family in steps)


async def _shape(shape: NetShape) -> None:
    step = f"finding {NET_DEVICE}"
    try:
        async with open_route() as ipr:
            (index,) = await ipr.link_lookup(ifname=NET_DEVICE)
            _silence_ipv6()
            step = f"setting MAC {shape.mac.hex(':')} and MTU {shape.mtu}"
            await ipr.link(
                "set",
                index=index,
                address=shape.mac.hex(":"),
                mtu=shape.mtu,
                gso_max_size=gso_max_size(shape.mtu),
            )
            await _bring_up(ipr, index)
            step = f"setting address {_ADDRESS}"
            await ipr.flush_addr(index=index)
            await ipr.addr("add", index=index, address=_ADDRESS, prefixlen=32, scope=_SCOPE_HOST)
        allow_forwarding()
    except (NetlinkError, OSError, ValueError) as error:
        reason = os.strerror(error.code) if isinstance(error, NetlinkError) else str(error)
        raise LinkError(f"{NET_DEVICE}: {step}: {reason}") from error


async def _bring_up(ipr: LoopIPRoute, index: int) -> None:
    """Without ARP: all there is behind it is the datapath, which looks at addresses."""
    flags = _IFF_UP | _IFF_NOARP
    await ipr.link("set", index=index, txqlen=_TX_QUEUE_LEN, flags=flags, change=flags)


def _silence_ipv6() -> None:
    path = Path(f"/proc/sys/net/ipv6/conf/{NET_DEVICE}/disable_ipv6")
    if path.exists():  # there is an IPv6 in this kernel
        write_sysctl(path, "1")
