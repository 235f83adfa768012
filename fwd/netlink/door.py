"""Into the pods' namespaces: directly where we may, else through the door, a tiny helper of root's.

Making devices takes CAP_NET_ADMIN; entering a namespace takes CAP_SYS_ADMIN, which is nearly root.
The hardened unit has the first only, and a read-only /proc/sys. What has to be done with more are a
few fixed errands: open a netlink socket, set one of ``_SETTINGS``. A process of its own
(`fwd-door.service`, ``serve``) does just those: a client sends the namespace's descriptor and an
errand over a unix socket that only the daemon's user may open, and gets a netlink socket or nothing
back. The kernel asks both for CAP_NET_ADMIN when that socket is used: who opened it and who sends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwd.netlink.errors import LinkError
from fwd.netlink.shim import in_namespace, netlink_socket, open_route

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwd.netlink.shim import LoopIPRoute

__all__ = [
    "DOOR_SOCKET",
    "POD_DEVICE",
    "ROUTE",
    "SILENCE_IPV6",
    "TAME_IPV6",
    "check_rights",
    "door_answers",
    "open_pod_route",
    "run_errand",
    "serve",
    "write_sysctl",
]

POD_DEVICE: Final = "eth0"
"""Name of the device inside the pod."""
DOOR_SOCKET: Final = "/run/fwd/door.sock"
"""Where the door is; ``FWD_DOOR_SOCKET`` in the environment names another place."""
ROUTE: Final = "route"
"""Open a netlink route socket."""
SILENCE_IPV6: Final = f"set ipv6/conf/{POD_DEVICE}/disable_ipv6 1"
"""Spare the drop counters the router solicitations of a pod that has no IPv6 address."""
TAME_IPV6: Final = f"set ipv6/conf/{POD_DEVICE}/accept_ra 0"
"""Let no router advertisement change a pod, and have it solicit none: its routes are ours."""

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_REQUEST_MAX = 128
_ANSWER_MAX = 256
_TIMEOUT_S = 5.0
"""Of a connection's two messages."""
_START_S = 30.0
"""Until a door answers that systemd starts first: at boot it is one of many, on a cold disk."""


_SYSCTL = Path("/proc/sys/net")
_SETTINGS = re.compile(
    rf"ipv6/conf/{POD_DEVICE}/(disable_ipv6 1|accept_ra 0)"
    r"|ipv6/conf/cilium_(host|net)/(disable_ipv6 [01]|addr_gen_mode 1)"
    r"|ipv4/conf/cilium_net/(accept_local 1|rp_filter 0|forwarding 1)"
    r"|ipv4/ip_forward [01]|ipv6/conf/all/forwarding [01]"
    r"|ipv6/conf/(?!\.)[\w.@-]{1,15}/accept_ra [12]",
    re.ASCII,
)
"""``KEY VALUE`` of every sysctl that is set, below /proc/sys/net: pods', our devices', routing."""


def _set(setting: str) -> None:
    key, _, value = setting.partition(" ")
    (_SYSCTL / key).write_text(value)


def _errand(name: str) -> Callable[[], socket.socket | None] | None:
    """Return what an errand does; None = there is no such errand."""
    verb, _, setting = name.partition(" ")
    if name == ROUTE:
        return netlink_socket
    if verb == "set" and _SETTINGS.fullmatch(setting):
        return lambda: _set(setting)
    return None


def check_rights() -> None:
    """Prove that we may make devices and, ourselves or through the door, get into namespaces.

    Waits until the door has been started, so that no errand has to: call it in a thread.

    Raises:
        LinkError: a capability is missing, and for the second the door, too.
    """
    missing = [name for name in _CAPABILITIES if not _has(name)]
    if not missing or (missing == ["CAP_SYS_ADMIN"] and door_answers(_door(), _START_S)):
        return
    raise LinkError(
        f"no {' and no '.join(missing)}: run as root, or as the systemd units do: fwd.service has "
        f"the first, the door at {_door()} the second (systemctl status fwd-door.socket)"
    )


def run_errand(netns_fd: int, errand: str) -> socket.socket | None:
    """Do an errand in a namespace.

    Args:
        netns_fd: open descriptor of the namespace.
        errand: ``ROUTE``, or ``set KEY VALUE``.

    Returns:
        A socket of that namespace, which the caller closes, for ``ROUTE``.

    Raises:
        OSError: the namespace cannot be entered, nobody is at the door, or the kernel refuses.
    """
    if _has("CAP_SYS_ADMIN"):
        function = _errand(errand)
        if function is None:
            raise OSError(errno.EINVAL, f"there is no errand {errand!r}")
        return in_namespace(netns_fd, function)
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


def write_sysctl(path: Path, value: str) -> None:
    """Set a sysctl of the calling thread's namespace, where /proc/sys is read-only by the door.

    Args:
        path: below /proc/sys/net.
        value: to be written.

    Raises:
        OSError: the kernel's reason for the first refusal, when the door could not help either.
    """
    try:
        path.write_text(value)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM} or _has("CAP_SYS_ADMIN"):
            raise
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            run_errand(fd, f"set {path.relative_to(_SYSCTL)} {value}")
        except OSError:
            raise error from None
        finally:
            os.close(fd)


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
        errand = _errand(request.decode(errors="replace"))
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


def door_answers(path: str, timeout_s: float) -> bool:
    """Tell whether somebody at a door answers, be it that there is no such errand as none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(path)
            sock.send(b"none")
            return sock.recv(_ANSWER_MAX) != b""
        except OSError:
            return False


def _has(capability: str) -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> _CAPABILITIES[capability] & 1)
