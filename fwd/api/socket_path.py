"""The path of the API's socket: taken over from the dead, refused to a second living daemon."""

from __future__ import annotations

import socket
from pathlib import Path

from fwd.observe.log import get_logger

__all__ = ["SocketTakenError", "claim", "open_to_group", "remove", "tell_path"]


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


def tell_path(listener: socket.socket, path: Path) -> None:
    """Log it when a listener that was handed over is not where the node file has the API."""
    where = str(listener.getsockname())
    if where != str(path):
        text = "the API listens where systemd's fwd.socket says, not on api.socket"
        get_logger().warning(text, socket=where, api_socket=str(path))


def remove(path: Path) -> None:
    """Remove the socket, if it is still there."""
    path.unlink(missing_ok=True)
