"""Pods to the world: the kernel's own forwarding and masquerading, undone when the daemon ends.

One nftables table of our own a family, replaced as a whole (so that one a killed daemon left is no
trouble), and the sysctls that make the kernel route. All in the daemon's network namespace.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from fwd.netlink.door import write_sysctl
from fwd.netlink.errors import LinkError
from fwd.netlink.host import HOST_DEVICE
from fwd.netlink.nft import load_rules

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fwd.model.rows import Address, Network

__all__ = ["TABLE", "Forwarding", "masquerade", "ruleset", "stop_masquerade"]

TABLE = "fwd_masquerade"
_SWITCHES = {
    4: Path("/proc/sys/net/ipv4/ip_forward"),
    6: Path("/proc/sys/net/ipv6/conf/all/forwarding"),
}
_IPV6 = Path("/proc/sys/net/ipv6")
"""There where the kernel has IPv6."""
_TABLES = {4: "ip", 6: "ip6"}


def ruleset(sources: Iterable[Network], exempt: Iterable[Network | Address]) -> str:
    """Return what ``nft -f`` shall read.

    Args:
        sources: the local pods' networks; a family without any has no table.
        exempt: destinations that see the pods' own addresses.
    """
    sources, exempt = tuple(sources), tuple(exempt)
    return _clean() + "".join(_table(version, sources, exempt) for version in _TABLES)


def _clean() -> str:
    """No table of ours: adding first makes removing one that is not there no error."""
    tables = [name for version, name in _TABLES.items() if version == 4 or _IPV6.exists()]
    return "".join(
        f"{verb} table {name} {TABLE}\n" for name in tables for verb in ("add", "delete")
    )


def _table(version: int, sources: Iterable[Network], exempt: Iterable[Network | Address]) -> str:
    own, others = (
        ", ".join(sorted(str(one) for one in some if one.version == version))
        for some in (sources, exempt)
    )
    if not own:
        return ""
    family = _TABLES[version]
    beside = f"{family} daddr != {{ {others} }} " if others else ""
    return (
        f"table {family} {TABLE} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    {family} saddr {{ {own} }} {beside}"
        f'oifname != {{ "lo", "{HOST_DEVICE}" }} masquerade\n'
        "  }\n"
        "}\n"
    )


async def masquerade(sources: Iterable[Network], exempt: Iterable[Network | Address]) -> None:
    """Let pods reach the world under the node's address; arguments as for ``ruleset``.

    Raises:
        LinkError: the kernel or nft refused; nothing was changed.
    """
    await load_rules(ruleset(sources, exempt), f"writing nftables table {TABLE}")


async def stop_masquerade() -> None:
    """Remove the tables; no table is fine.

    Raises:
        LinkError: the kernel or nft refused.
    """
    await load_rules(_clean(), f"removing nftables table {TABLE}")


class Forwarding:
    """The namespace's switches for routing between its devices, one a family.

    A kernel that routes IPv6 stops listening to router advertisements and forgets the default route
    it had from one; so devices that listen are first told to listen all the same (``accept_ra`` 2).
    """

    def __init__(self) -> None:
        self._before: dict[int, dict[Path, str]] = {}

    @property
    def ours(self) -> tuple[int, ...]:
        """Families that we turned on."""
        return tuple(sorted(self._before))

    def adopt(self, families: Iterable[int]) -> None:
        """Take these for turned on by us: by the daemon before, that is."""
        self._before |= {version: {_SWITCHES[version]: "0"} for version in families}

    def enable(self, families: Collection[int]) -> None:
        """Turn these on, and the others back off if it was we who turned them on.

        Args:
            families: of 4 and 6.

        Raises:
            LinkError: a sysctl cannot be written; what was on before stays on.
        """
        for version in [one for one in self._before if one not in families]:
            self._restore(version)
        for version in [one for one in families if one not in self._before]:
            self._enable(version)

    def restore(self) -> None:
        """Turn off what we turned on."""
        self.enable(())

    def _enable(self, version: int) -> None:
        switch = _SWITCHES[version]
        name = str(switch.relative_to("/proc/sys")).replace("/", ".")
        try:
            if switch.read_text().strip() != "0":
                return
            before = self._before[version] = {switch: "0"}
            if version == 6:
                for listens in _IPV6.glob("conf/*/accept_ra"):
                    if listens.read_text().strip() == "1":
                        write_sysctl(listens, "2")
                        before[listens] = "1"
            write_sysctl(switch, "1")
        except OSError as error:
            self._restore(version)
            raise LinkError(
                f"setting {name}: {error.strerror}; "
                f"`sysctl -w {name}=1` beforehand, pods need it to reach the world"
            ) from None

    def _restore(self, version: int) -> None:
        for path, value in self._before.pop(version, {}).items():
            with contextlib.suppress(FileNotFoundError):  # of a device that is gone
                write_sysctl(path, value)
