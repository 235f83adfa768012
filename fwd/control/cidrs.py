"""CIDR identities: every prefix a policy names gets a number of its own on this node.

Pure. A packet has the identity of the longest prefix that holds its address, so a rule for a prefix
means the identities of all known prefixes inside it, less those inside its exceptions. Prefixes
whose addresses are pods or nodes keep their own, longer rows (datapath reference 5.6).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Final

from fwd.config.schema import IpcacheSection
from fwd.model.identity import WORLD

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from fwd.config.schema import NodeFile
    from fwd.model.rows import Address, Network

__all__ = ["LOCAL_FIRST", "CidrIdentities", "is_local"]

LOCAL_FIRST: Final = 0x01000001
"""The first identity that never leaves its node (reference 5.1)."""
_LOCAL_SHIFT = 24
_Key = tuple[int, int, int]


def is_local(identity: int) -> bool:
    """Tell whether ``identity`` is a CIDR's."""
    return identity >> _LOCAL_SHIFT == LOCAL_FIRST >> _LOCAL_SHIFT


class CidrIdentities:
    """Prefix to identity.

    A raw row of the node file that says ``world``, for a prefix named here or inside one, gives way
    to an identity made here, which is a part of the world. A raw CIDR identity keeps its number and
    is meant as its prefix is, unless it stands for several. Any other row keeps its number, and no
    rule means it.

    Args:
        node: whose raw rows and peers say what a prefix is already.
        prefixes: all that policies name, exceptions included.
        own: addresses of pods and nodes.
    """

    def __init__(
        self, node: NodeFile, prefixes: Iterable[Network], own: Collection[Address]
    ) -> None:
        self._node = node
        self._written = {row.prefix: row for row in node.ipcache}
        self._answers: dict[tuple[Network, tuple[Network, ...]], frozenset[int]] = {}
        raw = Counter(row.identity for row in node.ipcache)
        written = {row.prefix: row.identity for row in node.ipcache
                   if is_local(row.identity) and raw[row.identity] == 1}  # fmt: skip
        taken = {*raw, *(rule.identity for rule in node.policy)}
        free = (number for number in count(LOCAL_FIRST) if number not in taken)
        self._made = {prefix: next(free) for prefix in self._unnumbered(set(prefixes), own)}
        everyone = self._made | written
        self._numbers = {prefix: everyone[prefix] for prefix in sorted(everyone, key=_order)}
        self._prefixes = list(self._numbers)
        self._keys = [_order(prefix) for prefix in self._prefixes]

    def _unnumbered(
        self, named: Collection[Network], own: Collection[Address]
    ) -> Iterator[Network]:
        """Give the prefixes that need a number, in order."""
        fixed = [
            prefix for peer in self._node.peers if peer.vni is not None for prefix in peer.pod_cidr
        ]
        world = {prefix for prefix, row in self._written.items() if row.identity == WORLD}
        inner = {one for one in world if any(_is_within(one, outer) for outer in named)}
        for prefix in sorted({*named, *inner}, key=_order):
            is_own = _is_one(prefix) and prefix.network_address in own
            is_other = prefix in self._written and prefix not in world
            if not is_own and not is_other and not any(_is_within(prefix, one) for one in fixed):
                yield prefix

    @property
    def names(self) -> dict[int, str]:
        """Identity to ``cidr:10.0.0.0/8``."""
        return {number: f"cidr:{prefix}" for prefix, number in self._made.items()}

    def inside(self, cidr: Network, excepts: tuple[Network, ...] = ()) -> frozenset[int]:
        """Return the identities that ``cidr`` without ``excepts`` means."""
        key = cidr, excepts
        if key not in self._answers:
            found = self._within(cidr)
            for one in excepts:
                found -= self._within(one)
            self._answers[key] = frozenset(found)
        return self._answers[key]

    def _within(self, cidr: Network) -> set[int]:
        """Return the identities of the prefixes in ``cidr``; they stand side by side."""
        first = bisect_left(self._keys, _order(cidr))
        last = bisect_left(self._keys, (cidr.version, int(cidr.broadcast_address) + 1, 0))
        return {self._numbers[prefix] for prefix in self._prefixes[first:last]}

    def rows(self) -> Iterator[IpcacheSection]:
        """Give the ipcache rows of the prefixes; inside a peer's range they keep its tunnel."""
        tunnels = [(prefix, peer.ip) for peer in self._node.peers for prefix in peer.pod_cidr]
        tunnels += [(row.prefix, row.tunnel_endpoint) for row in self._node.ipcache
                    if row.tunnel_endpoint is not None]  # fmt: skip
        for prefix, number in self._made.items():
            around = [one for one in tunnels if _is_within(prefix, one[0])]
            tunnel = max(around, key=lambda one: one[0].prefixlen, default=(None, None))[1]
            written = self._written.get(prefix)
            yield IpcacheSection.model_construct(
                prefix=prefix,
                identity=number,
                tunnel_endpoint=written.tunnel_endpoint if written else tunnel,
                flags=written.flags if written else (),
            )


def _order(prefix: Network) -> _Key:
    return prefix.version, int(prefix.network_address), prefix.prefixlen


def _is_one(prefix: Network) -> bool:
    return prefix.prefixlen == prefix.max_prefixlen


def _is_within(inner: Network, outer: Network) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )
