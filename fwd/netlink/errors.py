"""The one exception of the netlink room."""

from __future__ import annotations

__all__ = ["LinkError"]


class LinkError(Exception):
    """A device, namespace or address is not as it must be.

    The text says what was being done, to which object, and what to do next.
    """
