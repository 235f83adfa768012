"""Finding who holds a UDP port or a TAP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from fwd.netlink.owner import tap_owner, udp_owner
from fwd.netlink.tap import open_tap


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_owner_of_a_udp_port_is_named(family):
    """This process, for IPv4 and IPv6 sockets; nobody once it is closed."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        port = sock.getsockname()[1]
        assert (udp_owner(port) or "").endswith(f"(pid {os.getpid()})")
    assert udp_owner(port) is None


def test_younger_of_two_owners_is_named():
    """The manager that keeps a duplicate was there before the daemon, and is not who is meant."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()]
        )
        try:
            assert (udp_owner(sock.getsockname()[1]) or "").endswith(f"(pid {child.pid})")
        finally:
            child.communicate(b"\n")


@pytest.mark.netns
def test_owner_of_a_tap_is_named():
    """This process while the TAP is open, not for a name that only starts alike."""
    tap = open_tap()
    try:
        assert (tap_owner(tap.name) or "").endswith(f"(pid {os.getpid()})")
        assert tap_owner(tap.name[:-1]) is None
    finally:
        tap.close()
    assert tap_owner(tap.name) is None
