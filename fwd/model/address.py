"""Addresses, prefixes and MACs as values: parsing with texts that say what to write instead.

Pure. IP addresses are ``ipaddress`` objects, MACs are 6 bytes.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fwd.model.rows import Address, Network

__all__ = ["derive_mac", "host_network", "mac_text", "parse_address", "parse_mac", "parse_network"]

MAC_LEN = 6


def parse_address(text: object) -> Address:
    """Read one IPv4 or IPv6 address.

    Raises:
        ValueError: not an address; the text says what was expected.
    """
    if not isinstance(text, str):
        msg = f"{text!r} is not an IP address, write it like 10.244.0.108"
        raise ValueError(msg)  # noqa: TRY004 - a value the user wrote, not a bug
    try:
        return ip_address(text)
    except ValueError:
        msg = f"'{text}' is not an IP address, write it like 10.244.0.108 or fd00::108"
        raise ValueError(msg) from None


def parse_network(text: object) -> Network:
    """Read one prefix; an address alone is its own /32 or /128.

    Raises:
        ValueError: not a prefix, or bits set behind its length.
    """
    if not isinstance(text, str):
        msg = f"{text!r} is not a prefix, write it like 10.244.0.0/24"
        raise ValueError(msg)  # noqa: TRY004 - a value the user wrote, not a bug
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        msg = f"'{text}' is not a prefix, write it like 10.244.0.0/24"
        raise ValueError(msg) from None
    msg = f"'{text}' has bits set behind its length, write {loose}"
    raise ValueError(msg)


def host_network(address: Address) -> Network:
    """Return the prefix that holds just ``address``."""
    return ip_network(f"{address}/{address.max_prefixlen}")


def parse_mac(text: object) -> bytes:
    """Read a unicast MAC in colon or dash notation; 6 bytes.

    Raises:
        ValueError: not a MAC, all zero, or a multicast one.
    """
    parts = text.replace("-", ":").split(":") if isinstance(text, str) else []
    try:
        mac = bytes(int(part, 16) for part in parts if 0 < len(part) <= 2)
    except ValueError:
        mac = b""
    if len(parts) != MAC_LEN or len(mac) != MAC_LEN:
        msg = f'{text!r} is not a MAC, write it like "96:86:44:a6:37:ec"'
        raise ValueError(msg)
    if not any(mac):
        msg = "a MAC of all zeros is no station's, write the device's or leave it out"
        raise ValueError(msg)
    if mac[0] & 1:
        first = f"{mac[0] & 0xFE:02x}"
        msg = f"'{text}' is a multicast MAC, the first octet must be even: write {first}:..."
        raise ValueError(msg)
    return mac


def mac_text(mac: bytes) -> str:
    """Return ``mac`` in lower case colon notation."""
    return mac.hex(":")


def derive_mac(*names: str) -> bytes:
    """Return a locally administered unicast MAC that only depends on ``names``."""
    digest = bytearray(sha256("\0".join(names).encode()).digest()[:MAC_LEN])
    digest[0] = digest[0] & 0xFC | 0x02
    return bytes(digest)
