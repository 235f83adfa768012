"""Pods to the world: the kernel's own forwarding and masquerading, undone when the daemon ends.

One nftables table of our own, replaced as a whole (so that one a killed daemon left is no trouble),
and the sysctl ``net.ipv4.ip_forward``. Both in the daemon's network namespace; IPv4 only.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fwd.netlink.errors import LinkError
from fwd.netlink.host import HOST_DEVICE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwd.model.rows import Address, Network

__all__ = ["TABLE", "Forwarding", "check_nft", "masquerade", "ruleset", "stop_masquerade"]

TABLE = "fwd_masquerade"
_IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def check_nft() -> None:
    """Prove that nftables' command is there.

    Raises:
        LinkError: it is not installed.
    """
    if shutil.which("nft") is None:
        raise LinkError("nft is missing: `apt install nftables`")


def ruleset(sources: Iterable[Network], exempt: Iterable[Network | Address]) -> str:
    """Return what ``nft -f`` shall read.

    Args:
        sources: the local pods' networks; IPv6 ones are left out.
        exempt: destinations that see the pods' own addresses.
    """
    own, others = (
        ", ".join(sorted(str(one) for one in some if one.version == 4))
        for some in (sources, exempt)
    )
    beside = f"ip daddr != {{ {others} }} " if others else ""
    return (
        f"add table ip {TABLE}\n"
        f"delete table ip {TABLE}\n"
        f"table ip {TABLE} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f'    ip saddr {{ {own} }} {beside}oifname != {{ "lo", "{HOST_DEVICE}" }} masquerade\n'
        "  }\n"
        "}\n"
    )


async def masquerade(sources: Iterable[Network], exempt: Iterable[Network | Address]) -> None:
    """Let pods reach the world under the node's address; arguments as for ``ruleset``.

    Raises:
        LinkError: the kernel or nft refused; nothing was changed.
    """
    await _nft(ruleset(sources, exempt), f"writing nftables table {TABLE}")


async def stop_masquerade() -> None:
    """Remove the table; no table is fine.

    Raises:
        LinkError: the kernel or nft refused.
    """
    text = f"add table ip {TABLE}\ndelete table ip {TABLE}\n"
    await _nft(text, f"removing nftables table {TABLE}")


class Forwarding:
    """The namespace's switch for routing between its devices."""

    def __init__(self) -> None:
        self._ours = False

    def enable(self) -> None:
        """Turn it on; what was on before stays on afterwards.

        Raises:
            LinkError: the sysctl cannot be written.
        """
        if _IP_FORWARD.read_text().strip() != "0":
            return
        try:
            _IP_FORWARD.write_text("1")
        except OSError as error:
            raise LinkError(
                f"setting net.ipv4.ip_forward: {error.strerror}; "
                "`sysctl -w net.ipv4.ip_forward=1` beforehand, pods need it to reach the world"
            ) from None
        self._ours = True

    def restore(self) -> None:
        """Turn it off if it was we who turned it on."""
        if self._ours:
            _IP_FORWARD.write_text("0")
            self._ours = False


async def _nft(text: str, doing: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft", "-f", "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise LinkError(f"{doing}: running nft: {error.strerror}") from None
    _, errors = await process.communicate(text.encode())
    if process.returncode != 0:
        first = (errors.decode(errors="replace").splitlines() or ["no reason given"])[0]
        raise LinkError(f"{doing}: nft says: {first}")
