"""Microflows as text: ``default/curl -> 10.244.2.171:80/tcp``, read against one node's world.

Pure. Source: an endpoint's name or address, ``peer NAME/IP`` for traffic out of the overlay, or
``host``. Destination: an address or endpoint name, ``:PORT`` and ``/PROTO``. ``→`` and ``to`` mean
the same as ``->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fwd.datapath.packet import PORT_HOST, PORT_OVERLAY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwd.config.schema import NodeFile
    from fwd.control.world import World
    from fwd.model.rows import Address

__all__ = ["FlowError", "Microflow", "Place", "parse_microflow"]

_ARROW = re.compile(r"\s*(?:->|→|\s+to\s+)\s*")
FlowProto: TypeAlias = Literal["tcp", "udp", "sctp", "icmp"]
_PROTOS: Final[tuple[FlowProto, ...]] = ("tcp", "udp", "sctp", "icmp")
_PORT_MAX = 65535


class FlowError(ValueError):
    """The text is no microflow of this node; it says what is wrong and what to write."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where packets with some source address enter the datapath."""

    name: str
    """As tools print it."""
    port: int
    peer: Address | None = None
    """Outer source, on the overlay port."""


@dataclass(frozen=True, slots=True)
class Microflow:
    """One flow, before it is given a source port."""

    place: Place
    src: Address
    dst: Address
    proto: FlowProto
    """``icmp`` means ICMPv6 between IPv6 addresses."""
    dport: int
    """0 with icmp."""


def parse_microflow(text: str, node: NodeFile, world: World) -> Microflow:
    """Read one microflow.

    Args:
        text: as the user typed it.
        node: for the names of peers.
        world: for the names and addresses of endpoints.

    Raises:
        FlowError: it is none, or names something this node does not have.
    """
    parts = _ARROW.split(text.strip())
    if len(parts) != 2 or not all(parts):
        hint = "the shell takes an unquoted > for itself: " if text.rstrip().endswith("-") else ""
        raise FlowError(
            f"{text!r} is not a microflow, {hint}write 'default/curl -> 10.244.2.171:80/tcp' in "
            "quotes, or `to` for the arrow"
        )
    target, dport, proto = _destination(parts[1])
    place, sources = _source(parts[0], node, world)
    dst = _address(target, sources, world)
    src = next((one for one in sources if one.version == dst.version), None)
    if src is None:
        raise FlowError(f"{parts[0]} has no IPv{dst.version} address, {dst} cannot be its target")
    return Microflow(place, src, dst, proto, dport)


# ---- the left side ----


def _source(text: str, node: NodeFile, world: World) -> tuple[Place, tuple[Address, ...]]:
    """Give where packets come in, and the addresses they may have."""
    if text == "host":
        rows = sorted((row for row in world.lxc if row.host), key=lambda row: not row.router)
        return Place("host", PORT_HOST), tuple(row.addr for row in rows)
    if text.split(maxsplit=1)[0] == "peer":
        return _peer(text.removeprefix("peer").strip(), node)
    number = next((lxc_id for lxc_id, name in world.names.items() if name == text), None)
    if number is not None:
        own = tuple(row.addr for row in world.lxc if not row.host and row.lxc_id == number)
        return Place(text, number), own
    address = _parse(text)
    if address is None:
        raise FlowError(_unknown("endpoint", text, world.names.values()))
    for row in world.lxc:
        if row.addr == address:
            name = "host" if row.host else world.names[row.lxc_id]
            return Place(name, PORT_HOST if row.host else row.lxc_id), (address,)
    raise FlowError(
        f"{text} is no address of this node or of its endpoints; for traffic out of the overlay "
        f"write `peer NAME/{text}`"
    )


def _peer(text: str, node: NodeFile) -> tuple[Place, tuple[Address, ...]]:
    name, _, inner = text.rpartition("/")
    address = _parse(inner)
    if not name or address is None:
        raise FlowError(f"'peer {text}': write the peer and the address behind it: peer NAME/IP")
    for peer in node.peers:
        if name in {peer.name, str(peer.ip)}:
            return Place(peer.name, PORT_OVERLAY, peer.ip), (address,)
    raise FlowError(_unknown("peer", name, [peer.name for peer in node.peers]))


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return f"no {kind} is named {name!r}, {hint}"


# ---- the right side ----


def _destination(text: str) -> tuple[str, int, FlowProto]:
    """Cut ``NAME-or-IP[:PORT][/PROTO]`` into its parts."""
    rest, _, last = text.rpartition("/")
    word = "icmp" if last in {"icmpv6", "icmp6"} else last
    known: FlowProto | None = next((proto for proto in _PROTOS if proto == word), None)
    if known is None and rest and _parse(rest) is not None:
        raise FlowError(f"{last!r} is no protocol, write one of {', '.join(_PROTOS)}")
    if known is None:
        rest = text
    target, port = _port(rest)
    if known is None:
        known = "icmp" if port is None else "tcp"
    if known == "icmp" and port is not None:
        raise FlowError(f"{text}: icmp has no ports, leave :{port} out")
    if known != "icmp" and port is None:
        raise FlowError(f"{text}: {known} needs a port, write {rest}:80/{known}")
    return target, port or 0, known


def _port(text: str) -> tuple[str, int | None]:
    if _parse(text.strip("[]")) is not None:
        return text.strip("[]"), None
    target, colon, digits = text.rpartition(":")
    if not colon:
        return text, None
    if not digits.isascii() or not digits.isdigit() or not 0 < int(digits) <= _PORT_MAX:
        raise FlowError(f"{text}: {digits!r} is not a port, write 1 to {_PORT_MAX}")
    return target.strip("[]"), int(digits)


def _address(text: str, sources: tuple[Address, ...], world: World) -> Address:
    """Resolve the destination; of a name's addresses the first of a family the source has."""
    address = _parse(text)
    if address is not None:
        return address
    number = next((lxc_id for lxc_id, name in world.names.items() if name == text), None)
    families = {one.version for one in sources}
    for row in world.lxc:
        if not row.host and row.lxc_id == number and row.addr.version in families:
            return row.addr
    raise FlowError(f"destination: {_unknown('endpoint', text, world.names.values())}, or an IP")


def _parse(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
