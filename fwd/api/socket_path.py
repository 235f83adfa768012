"""The path of the API's socket: taken over from the dead, refused to a second living daemon."""

from __future__ import annotations

import socket
from pathlib import Path

__all__ = ["SocketTakenError", "claim", "open_to_group", "remove"]


class SocketTakenError(OSError):
    """Another daemon answers on the socket."""


def claim(path: Path) -> None:
    """Take the socket's path over from a daemon that is gone, never from one that answers.

    Raises:
        SocketTakenError: another daemon answers there; nothing was touched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise SocketTakenError(
                f"another daemon answers on {path}: stop it, or set api.socket in the node file"
            )
    path.unlink()


def open_to_group(path: Path) -> None:
    """Let root's group in, and nobody else."""
    path.chmod(0o660)


def remove(path: Path) -> None:
    """Remove the socket, if it is still there."""
    path.unlink(missing_ok=True)
