"""Network namespaces by name, path or descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from fwd.netlink.errors import LinkError

__all__ = ["NETNS_DIR", "namespace_path", "open_namespace"]

NETNS_DIR = Path("/run/netns")
"""Where ``ip netns`` keeps its names."""
_NS_GET_NSTYPE = 0xB703
_CLONE_NEWNET = 0x40000000


def namespace_path(namespace: str) -> Path:
    """Return the file that stands for a namespace given by name or by path."""
    return Path(namespace) if "/" in namespace else NETNS_DIR / namespace


def open_namespace(namespace: str) -> int:
    """Open a network namespace.

    Args:
        namespace: a name of ``ip netns`` or a path (``/proc/PID/ns/net`` and the like).

    Returns:
        A descriptor, closed on exec, which the caller closes.

    Raises:
        LinkError: it is missing, unreadable, or not a network namespace.
    """
    path = namespace_path(namespace)
    named = "/" not in namespace
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang us
    except FileNotFoundError:
        hint = f"create it with `ip netns add {namespace}`" if named else "check the path"
        if path.is_relative_to("/proc"):
            hint = "fwd.service sees no other process: `ip netns attach NAME PID`, give the name"
        raise LinkError(f"network namespace {namespace} is missing ({path}): {hint}") from None
    except OSError as error:
        raise LinkError(f"opening network namespace {path}: {error.strerror}") from None
    if not _is_network_namespace(fd):
        os.close(fd)
        hint = f"`ip netns del {namespace}` and add it again" if named else "check the path"
        raise LinkError(f"{path} is no network namespace: {hint}")
    return fd


def _is_network_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL, errno.EBADF}:
            return False
        raise
