"""nftables, through its own command: rules are text, a load is one transaction."""

from __future__ import annotations

import asyncio
import shutil

from fwd.netlink.errors import LinkError

__all__ = ["check_nft", "load_rules"]


def check_nft() -> None:
    """Prove that nftables' command is there.

    Raises:
        LinkError: it is not installed.
    """
    if shutil.which("nft") is None:
        raise LinkError("nft is missing: `apt install nftables`")


async def load_rules(text: str, doing: str) -> None:
    """Let ``nft -f`` read ``text``, in the daemon's namespace; all of it takes effect or nothing.

    Args:
        text: what it shall read.
        doing: the step, for error texts.

    Raises:
        LinkError: the kernel or nft refused.
    """
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
