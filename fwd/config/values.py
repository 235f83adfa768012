"""Readers of single values of the node file that are more than a number or a word.

Pure. Each takes what YAML gave and returns the value, or raises ``ValueError`` with a text of the
form "what is wrong, what to do".
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Literal

from fwd.model.address import parse_address, parse_network
from fwd.model.identity import IDENTITY_MAX
from fwd.model.policy import PortRange

if TYPE_CHECKING:
    from fwd.model.rows import Address, Network

__all__ = [
    "LINE_KEY",
    "addresses",
    "ifname",
    "labels",
    "listen",
    "manifests",
    "mtu",
    "name",
    "networks",
    "outside6",
    "policy_identity",
    "port_range",
    "underlay",
]

LINE_KEY = "\0line"
"""Where the loader puts a mapping's line: no key of a node file begins like this."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")
IFNAME_LEN = 15  # IFNAMSIZ less its terminator
MTU_MIN = 576  # what every IPv4 host must take (RFC 791)
MTU_MAX = 65535 - 50
PORT_MAX = 65535


def _items(value: object) -> list[object]:
    """Return a list as it is, one value as a list of one."""
    return value if isinstance(value, list) else [value]


def addresses(value: object) -> tuple[Address, ...]:
    """Read one address or a list of them."""
    found = tuple(parse_address(item) for item in _items(value))
    if not found:
        msg = "the list is empty, write at least one IP address"
        raise ValueError(msg)
    return found


def networks(value: object) -> tuple[Network, ...]:
    """Read one prefix or a list of them."""
    return tuple(parse_network(item) for item in _items(value))


def underlay(value: object) -> IPv4Address:
    """Read an underlay address: IPv4 in this version."""
    address = parse_address(value)
    if not isinstance(address, IPv4Address):
        msg = f"'{address}' is IPv6, the tunnel runs over IPv4: write the node's IPv4 address"
        raise ValueError(msg)  # noqa: TRY004 - a value the user wrote, not a bug
    if address.is_unspecified or address.is_multicast:
        msg = f"'{address}' is no node's address, write the node's own"
        raise ValueError(msg)
    return address


def outside6(value: object) -> IPv6Address:
    """Read the IPv6 address that a node has outside the cluster."""
    address = parse_address(value)
    if not isinstance(address, IPv6Address):
        msg = f"'{address}' is IPv4, write an IPv6 address of the node; node.ip is the IPv4 one"
        raise ValueError(msg)  # noqa: TRY004 - a value the user wrote, not a bug
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        msg = f"'{address}' reaches no world, write a global address of the node"
        raise ValueError(msg)
    return address


def name(value: object) -> str:
    """Read the name of a node, peer, endpoint or service."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        msg = f"{value!r} is not a name, use letters, digits and . _ / -"
        raise ValueError(msg)
    return value


def ifname(value: object) -> str:
    """Read the name of a network device."""
    bad = not isinstance(value, str) or not value or len(value) > IFNAME_LEN
    if bad or not re.fullmatch(r"[A-Za-z0-9._-]+", str(value)):
        msg = f"{value!r} is not a device name, use 1..{IFNAME_LEN} letters, digits and . _ -"
        raise ValueError(msg)
    return str(value)


def labels(value: object) -> dict[str, str]:
    """Read labels: a flat mapping of text to text."""
    if not isinstance(value, dict):
        msg = f"{value!r} is not a mapping, write labels like {{app: curl}}"
        raise ValueError(msg)  # noqa: TRY004 - a value the user wrote, not a bug
    found = {key: text for key, text in value.items() if key != LINE_KEY}
    for key, text in found.items():
        if not isinstance(key, str) or not isinstance(text, str):
            msg = f"label {key!r} is not text, put it in quotes"
            raise ValueError(msg)  # noqa: TRY004 - a value the user wrote, not a bug
    return found


def mtu(value: object) -> int | Literal["auto"]:
    """Read the inner MTU in bytes, or ``auto``."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not MTU_MIN <= value <= MTU_MAX:
        msg = f"{value!r} is not an MTU, write auto or {MTU_MIN}..{MTU_MAX}"
        raise ValueError(msg)
    return value


def policy_identity(value: object) -> int | Literal["any"]:
    """Read the identity of a rule: a number from 1, or ``any``."""
    if value == "any":
        return "any"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= IDENTITY_MAX:
        msg = f"{value!r} is not an identity, write any or a number from 1 to {IDENTITY_MAX}"
        raise ValueError(msg)
    return value


def port_range(value: object) -> PortRange | None:
    """Read ``any`` (None), a port, or ``first-last``; ICMP: the type. 0..65535 here."""
    if value == "any":
        return None
    match = re.fullmatch(r"(\d{1,5})(?:\s*-\s*(\d{1,5}))?", str(value))
    if isinstance(value, bool) or not match:
        msg = f"{value!r} is not a port, write any, 80 or 8080-8095"
        raise ValueError(msg)
    first = int(match[1])
    last = int(match[2] or first)
    if max(first, last) > PORT_MAX:
        msg = f"'{value}' is out of range, ports end at {PORT_MAX}"
        raise ValueError(msg)
    if first > last:
        msg = f"'{value}' runs backwards, write {last}-{first}"
        raise ValueError(msg)
    return PortRange(first, last)


def listen(value: object) -> str:
    """Read ``host:port`` (``[host]:port`` for IPv6)."""
    host, _, port = str(value).rpartition(":")
    try:
        parse_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        number = 0
    if not 1 <= number <= PORT_MAX:
        msg = f'{value!r} is not an address to listen on, write it like "127.0.0.1:9962"'
        raise ValueError(msg)
    return str(value)


def manifests(value: object) -> tuple[str, ...]:
    """Read the list of manifest files and directories of them."""
    found = _items(value)
    for item in found:
        if not isinstance(item, str) or not item:
            msg = f"{item!r} is not a path, write a manifest file or a directory of them"
            raise ValueError(msg)
    return tuple(str(item) for item in found)
