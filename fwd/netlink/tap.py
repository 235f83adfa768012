"""TAP devices: open /dev/net/tun and make a device whose life is its descriptor's.

The device is not persistent: when the last duplicate of its descriptor closes, it vanishes with its
addresses. Moving, naming and addressing are link.py's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from fwd.netlink.errors import LinkError
from fwd.netlink.owner import tap_owner

__all__ = ["TUN_DEVICE", "VNET_HDR_SIZE", "Tap", "adopt_tap", "check_tun_device", "open_tap"]

TUN_DEVICE = Path("/dev/net/tun")
VNET_HDR_SIZE = 12
"""Bytes of virtio_net_hdr_v1 before each frame."""

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_TUNGETIFF = 0x800454D2
_TUNGETVNETHDRSZ = 0x800454D7
_TUNSETVNETHDRSZ = 0x400454D8
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
"""Refuse to attach to a device that exists already."""
_KIND = 0x0003 | _IFF_NO_PI | _IFF_VNET_HDR | 0x0100
"""What TUNGETIFF has to answer as we ask for it: the kind, the headers, and no multi-queue."""
_TUN_F_CSUM = 0x01
"""We take frames with unfinished checksums."""
_IFREQ = struct.Struct("16sH22x")


@dataclass(frozen=True, slots=True)
class Tap:
    """An open TAP; closing ``fd`` removes the device."""

    fd: int
    name: str
    """As the kernel chose it, before link.py renames the device."""
    vnet_hdr_size: int

    def set_offload(self, offload: int) -> None:
        """Say which frames we take (``TAP_*`` of offload.py); may change at any time.

        Raises:
            LinkError: the kernel does not know one of them.
        """
        try:
            fcntl.ioctl(self.fd, _TUNSETOFFLOAD, offload)
        except OSError as error:
            raise LinkError(
                f"setting offloads {offload:#x} of TAP {self.name}: {error.strerror}; "
                "features.offload switches them off"
            ) from None

    def close(self) -> None:
        """Remove the device."""
        os.close(self.fd)


def check_tun_device() -> None:
    """Prove that TAPs can be opened here, without making one.

    Raises:
        LinkError: no /dev/net/tun, or no right to open it.
    """
    os.close(_open_tun())


def open_tap(name: str = "fwdtap%d") -> Tap:
    """Make a TAP with a vnet header and checksum offload, non-blocking and closed on exec.

    Args:
        name: of the device, at most 15 characters; ``%d`` lets the kernel pick a free number.

    Returns:
        The TAP, down and without addresses, in the daemon's network namespace.

    Raises:
        LinkError: no /dev/net/tun, no CAP_NET_ADMIN, the name is taken, or the kernel lacks
            something we need.
    """
    fd = _open_tun()
    try:
        chosen = _attach(fd, name)
        _configure(fd, chosen)
    except BaseException:
        os.close(fd)
        raise
    return Tap(fd, chosen, VNET_HDR_SIZE)


def adopt_tap(fd: int) -> Tap:
    """Take over a TAP that another process has made with ``open_tap``.

    Args:
        fd: its descriptor; the caller's when this raises.

    Raises:
        LinkError: the device is gone, or is not as we make them.
    """
    try:
        name, flags = _IFREQ.unpack(fcntl.ioctl(fd, _TUNGETIFF, bytes(_IFREQ.size)))
        size = struct.unpack("i", fcntl.ioctl(fd, _TUNGETVNETHDRSZ, bytes(4)))[0]
    except OSError as error:
        gone = error.errno == errno.EBADFD
        raise LinkError(
            "its device is gone" if gone else f"it is no TAP: {error.strerror}"
        ) from None
    name = name.rstrip(b"\0").decode()
    if flags & _KIND != _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR:
        raise LinkError(f"device {name} has flags {flags:#x}, which are not those of our TAPs")
    if size != VNET_HDR_SIZE:
        raise LinkError(f"device {name} has a vnet header of {size} bytes, not {VNET_HDR_SIZE}")
    os.set_blocking(fd, False)
    return Tap(fd, name, size)


def _open_tun() -> int:
    try:
        return os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise LinkError(
            f"no {TUN_DEVICE}: `modprobe tun`, or pass the device into the container"
        ) from None
    except OSError as error:
        if error.errno in {errno.ENODEV, errno.ENXIO}:
            raise LinkError(f"{TUN_DEVICE} has no driver: `modprobe tun`") from None
        raise LinkError(
            f"opening {TUN_DEVICE}: {error.strerror}; run as root or give the user access to it"
        ) from None


def _attach(fd: int, name: str) -> str:
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
    try:
        answer = fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except PermissionError:
        raise LinkError(f"making TAP {name}: no CAP_NET_ADMIN, run as root or grant it") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            owner = tap_owner(name)
            who = f"owned by {owner}" if owner else "`ip link show` tells what it is"
            raise LinkError(f"making TAP {name}: the name is taken, {who}") from None
        raise LinkError(f"making TAP {name}: {error.strerror}") from None
    raw_name: bytes = _IFREQ.unpack(answer)[0]
    return raw_name.rstrip(b"\0").decode()


def _configure(fd: int, name: str) -> None:
    try:
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", VNET_HDR_SIZE))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, _TUN_F_CSUM)
    except OSError as error:
        raise LinkError(
            f"setting the vnet header of TAP {name}: {error.strerror}; Linux 3.10 or newer needed"
        ) from None
