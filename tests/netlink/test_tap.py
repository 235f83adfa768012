"""Opening TAPs: flags, life time, and what is said when they cannot be had."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

from fwd.netlink import tap as tap_module
from fwd.netlink.errors import LinkError
from fwd.netlink.tap import adopt_tap, check_tun_device, open_tap
from tests.netlink.namespaces import open_descriptors

pytestmark = pytest.mark.netns
TUNGETIFF, TUNSETIFF, TUNSETVNETHDRSZ = 0x800454D2, 0x400454CA, 0x400454D8


def test_tap_is_an_unshared_vnet_device_that_ends_with_its_descriptor():
    """TAP without packet information, with a vnet header; closed on exec and non-blocking."""
    tap = open_tap()
    try:
        name, flags = struct.unpack("16sH22x", fcntl.ioctl(tap.fd, TUNGETIFF, bytes(40)))
        assert name.rstrip(b"\0").decode() == tap.name
        assert flags & 0x5002 == 0x5002, "IFF_VNET_HDR, IFF_NO_PI and IFF_TAP"
        assert not flags & 0x0800, "not persistent"
        assert not os.get_inheritable(tap.fd)
        assert not os.get_blocking(tap.fd)
        with pytest.raises(BlockingIOError):
            os.read(tap.fd, 100)
        assert Path(f"/sys/class/net/{tap.name}").exists()
    finally:
        tap.close()
    assert not Path(f"/sys/class/net/{tap.name}").exists()


def test_two_taps_get_different_names():
    """The kernel picks a free number for each."""
    one, other = open_tap(), open_tap()
    try:
        assert one.name != other.name
    finally:
        one.close()
        other.close()


def test_taken_name_names_its_owner():
    """Never attached to: the process that holds the device is named."""
    tap = open_tap()
    try:
        with pytest.raises(LinkError, match=rf"taken, owned by .*\(pid {os.getpid()}\)"):
            open_tap(tap.name)
    finally:
        tap.close()
    with pytest.raises(LinkError, match="taken, `ip link show`"):
        open_tap("lo")


def test_failed_open_leaves_no_descriptor():
    """What was opened on the way is closed again."""
    before = open_descriptors()
    with pytest.raises(LinkError):
        open_tap("lo")
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.ENODEV, "has no driver"),
        (errno.EACCES, "run as root"),
    ],
)
def test_missing_device_says_what_to_do(monkeypatch, code, text):
    """No /dev/net/tun, none behind it, no access to it."""

    def refuse(*_arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tap_module.os, "open", refuse)
    with pytest.raises(LinkError, match=text):
        check_tun_device()


@pytest.mark.parametrize(
    ("request_number", "text"),
    [(0x400454CA, "no CAP_NET_ADMIN"), (0x400454D8, "setting the vnet header")],
)
def test_refused_ioctl_says_what_was_done(monkeypatch, request_number, text):
    """The step that failed stands in the text, and the descriptor is closed."""
    real = fcntl.ioctl

    def refuse(fd, number, argument):
        if number == request_number:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(fd, number, argument)

    monkeypatch.setattr(tap_module.fcntl, "ioctl", refuse)
    before = open_descriptors()
    with pytest.raises(LinkError, match=text):
        open_tap()
    assert open_descriptors() == before


def test_adopted_tap_is_the_same_device():
    """A duplicate of the descriptor is as good as the descriptor; the device ends with the last."""
    tap = open_tap()
    copy = os.dup(tap.fd)
    tap.close()
    again = adopt_tap(copy)
    assert (again.name, again.vnet_hdr_size) == (tap.name, tap.vnet_hdr_size)
    assert not os.get_blocking(copy)
    again.close()
    assert not Path(f"/sys/class/net/{tap.name}").exists()


def test_only_our_kind_of_tap_is_adopted():
    """A device that is gone, another header, other flags, a file: each is named."""
    tap = open_tap()
    fcntl.ioctl(tap.fd, TUNSETVNETHDRSZ, struct.pack("i", 10))
    with pytest.raises(LinkError, match="vnet header of 10 bytes"):
        adopt_tap(tap.fd)
    subprocess.run(["ip", "link", "del", tap.name], check=True)
    with pytest.raises(LinkError, match="device is gone"):
        adopt_tap(tap.fd)
    os.close(tap.fd)
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"fwdtest%d", 0x0002))
    with pytest.raises(LinkError, match="flags 0x"):
        adopt_tap(fd)
    os.close(fd)
    with Path("/dev/null").open() as null, pytest.raises(LinkError, match="no TAP"):
        adopt_tap(null.fileno())
