"""Into the pods' namespaces: directly where we may, else through the door, a tiny helper of root's.

Making devices takes CAP_NET_ADMIN; entering a namespace takes CAP_SYS_ADMIN, which is nearly root.
The hardened unit has the first only. What has to be done inside a pod's namespace are three fixed
errands (``ERRANDS``), so a process of its own (`fwd-door.service`, ``serve``) does just those: a
client sends the namespace's descriptor and an errand's name over a unix socket that only the
daemon's user may open, and gets a netlink socket or nothing back. The kernel asks both for
CAP_NET_ADMIN when that socket is used: who opened it and who sends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwd.netlink.errors import LinkError
from fwd.netlink.shim import in_namespace, netlink_socket, open_route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwd.netlink.shim import LoopIPRoute

__all__ = [
    "DOOR_SOCKET",
    "ERRANDS",
    "POD_DEVICE",
    "ROUTE",
    "SILENCE_IPV6",
    "TAME_IPV6",
    "check_rights",
    "open_pod_route",
    "run_errand",
    "serve",
]

POD_DEVICE: Final = "eth0"
"""Name of the device inside the pod."""
DOOR_SOCKET: Final = "/run/fwd/door.sock"
"""Where the door is; ``FWD_DOOR_SOCKET`` in the environment names another place."""
ROUTE: Final = "route"
SILENCE_IPV6: Final = "silence-ipv6"
TAME_IPV6: Final = "tame-ipv6"

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_REQUEST_MAX = 64
_ANSWER_MAX = 256
_TIMEOUT_S = 5.0
"""Of a connection's two messages."""


def _silence_ipv6() -> None:
    """Spare the drop counters the router solicitations of a pod that has no IPv6 address."""
    with contextlib.suppress(OSError):  # no IPv6 in this kernel, or /proc/sys is read-only
        Path(f"/proc/sys/net/ipv6/conf/{POD_DEVICE}/disable_ipv6").write_text("1")


def _tame_ipv6() -> None:
    """Let no router advertisement change a pod, and have it solicit none: its routes are ours."""
    with contextlib.suppress(OSError):  # /proc/sys is read-only
        Path(f"/proc/sys/net/ipv6/conf/{POD_DEVICE}/accept_ra").write_text("0")


ERRANDS: Final[Mapping[str, Callable[[], socket.socket | None]]] = {
    ROUTE: netlink_socket,
    SILENCE_IPV6: _silence_ipv6,
    TAME_IPV6: _tame_ipv6,
}
"""All that is ever done in a pod's namespace, by name."""


def check_rights() -> None:
    """Prove that we may make devices and, ourselves or through the door, get into namespaces.

    Raises:
        LinkError: a capability is missing, and for the second the door, too.
    """
    missing = [name for name in _CAPABILITIES if not _has(name)]
    if not missing or (missing == ["CAP_SYS_ADMIN"] and _door_opens()):
        return
    raise LinkError(
        f"no {' and no '.join(missing)}: run as root, or as the systemd units do: fwd.service has "
        f"the first, the door at {_door()} the second (systemctl status fwd-door.socket)"
    )


def run_errand(netns_fd: int, errand: str) -> socket.socket | None:
    """Do one of ``ERRANDS`` in a pod's namespace.

    Args:
        netns_fd: open descriptor of the namespace.
        errand: its name.

    Returns:
        What the errand gives: a socket of that namespace, which the caller closes, or nothing.

    Raises:
        OSError: the namespace cannot be entered, or nobody is at the door.
    """
    if _has("CAP_SYS_ADMIN"):
        return in_namespace(netns_fd, ERRANDS[errand])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_TIMEOUT_S)
        sock.connect(_door())
        socket.send_fds(sock, [errand.encode()], [netns_fd])
        try:
            answer, fds, _, _ = socket.recv_fds(sock, _ANSWER_MAX, 1)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"the door at {_door()} does not answer") from None
    code, _, text = answer.decode().partition(" ")
    if code != "0":
        raise OSError(int(code or errno.EPIPE), text or "the door has broken off")
    return socket.socket(fileno=fds[0]) if fds else None


def open_pod_route(netns_fd: int) -> LoopIPRoute:
    """Speak netlink route inside a pod's namespace; arguments and errors of ``run_errand``."""
    return open_route(run_errand(netns_fd, ROUTE))


def serve(listener: socket.socket, idle_s: float) -> None:
    """Be the door: answer until nobody has come for ``idle_s`` seconds.

    Args:
        listener: of a SOCK_SEQPACKET unix socket; its mode says who may ask.
        idle_s: seconds; systemd starts the door again when somebody comes.
    """
    listener.settimeout(idle_s)
    while True:
        try:
            client, _ = listener.accept()
        except TimeoutError:
            return
        with client, contextlib.suppress(OSError):  # a client that breaks off
            client.settimeout(_TIMEOUT_S)
            _answer(client)


def _answer(client: socket.socket) -> None:
    request, fds, _, _ = socket.recv_fds(client, _REQUEST_MAX, 1)
    try:
        errand = ERRANDS.get(request.decode(errors="replace"))
        if errand is None or len(fds) != 1:
            client.send(b"22 the door knows no such errand")
            return
        try:
            given = in_namespace(fds[0], errand)  # refuses what is no network namespace
        except OSError as error:
            client.send(f"{error.errno or 5} {error.strerror}".encode())
            return
        if given is None:
            client.send(b"0 ")
            return
        with given:
            socket.send_fds(client, [b"0 "], [given.fileno()])
    finally:
        for fd in fds:
            os.close(fd)


def _door() -> str:
    return os.environ.get("FWD_DOOR_SOCKET", DOOR_SOCKET)


def _door_opens() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        return sock.connect_ex(_door()) == 0


def _has(capability: str) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> _CAPABILITIES[capability] & 1)
