"""Numeric security identities: reserved numbers, names, and what fits on the wire.

Source: datapath reference 5.1.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "HOST",
    "IDENTITY_MAX",
    "INIT",
    "KUBE_APISERVER",
    "REMOTE_NODE",
    "RESERVED",
    "UNKNOWN",
    "WELL_KNOWN",
    "WIRE_MAX",
    "WORLD",
    "WORLD_IPV4",
    "WORLD_IPV6",
    "identity_name",
]

UNKNOWN: Final = 0
HOST: Final = 1
WORLD: Final = 2
INIT: Final = 5
REMOTE_NODE: Final = 6
KUBE_APISERVER: Final = 7
"""A remote node that runs it."""
WORLD_IPV4: Final = 9
WORLD_IPV6: Final = 10
WELL_KNOWN: Final = 100
"""The first identity of a pod: below are reserved ones only."""

RESERVED: Final = {
    0: "unknown",
    1: "host",
    2: "world",
    3: "unmanaged",
    4: "health",
    5: "init",
    6: "remote-node",
    7: "kube-apiserver",
    8: "ingress",
    9: "world-ipv4",
    10: "world-ipv6",
}

WIRE_MAX: Final = (1 << 24) - 1
"""The VNI carries the identity: larger numbers stay on their node."""

IDENTITY_MAX: Final = (1 << 32) - 1


def identity_name(identity: int) -> str:
    """Return the reserved name of ``identity``, or the number as text."""
    return RESERVED.get(identity, str(identity))
