"""Echo requests: which sizes come back over a real link, a narrow one and a dead one."""

from __future__ import annotations

import contextlib
import subprocess
import time
from ipaddress import IPv4Address

import pytest

from fwd.netlink.echo import HEADERS_SIZE, Way, probe_way
from fwd.netlink.netns import open_namespace
from fwd.netlink.shim import in_namespace
from fwd.netlink.tunnel import route_mtu
from tests.netlink.namespaces import namespace

pytestmark = pytest.mark.netns
HERE, ROUTER, THERE = (IPv4Address(one) for one in ("198.18.7.1", "198.18.7.2", "198.18.8.2"))
FULL = 1500


def run(*command: str) -> None:
    """Run a command of ip or sysctl."""
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def line():
    """Three namespaces in a row, 1500 bytes wide: here, a router, there."""
    with namespace() as here, namespace() as router, namespace() as there:
        for left, right, net, (one, two) in (
            (here, router, "198.18.7", ("near0", "near1")),
            (router, there, "198.18.8", ("far0", "far1")),
        ):  # fmt: skip
            run("ip", "-n", left, "link", "add", one, "type", "veth",
                "peer", "name", two, "netns", right)  # fmt: skip
            for space, name, last in ((left, one, 1), (right, two, 2)):
                run("ip", "-n", space, "addr", "add", f"{net}.{last}/24", "dev", name)
                run("ip", "-n", space, "link", "set", name, "up")
        run("ip", "-n", here, "route", "add", "198.18.8.0/24", "via", str(ROUTER))
        run("ip", "-n", there, "route", "add", "198.18.7.0/24", "via", "198.18.8.1")
        run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        yield here, router, there


def ask(name: str, peer: IPv4Address) -> tuple[Way | None, int | None]:
    """Probe from a namespace; the way, and what its kernel knows of the MTU then."""
    fd = open_namespace(name)
    with open(fd, closefd=True):  # noqa: PTH123 - a descriptor
        found: tuple[Way | None, int | None] = in_namespace(
            fd, lambda: (probe_way(HERE, peer, FULL, 0.4), route_mtu(HERE, peer))
        )
    return found


def test_full_packets_come_back_whole():
    """Over one link and over a router; the time is not used up."""
    with line() as (here, _, _):
        began = time.monotonic()
        assert ask(here, ROUTER) == (Way(True, True, False), FULL)
        assert ask(here, THERE) == (Way(True, True, False), FULL)
        assert time.monotonic() - began < 2


def test_peer_with_a_narrower_device_loses_them():
    """Nobody tells of it, and fragments of the sender's size do not pass either."""
    with line() as (here, router, _):
        run("ip", "-n", router, "link", "set", "near1", "mtu", "1280")
        assert ask(here, ROUTER) == (Way(True, False, False), FULL)


def test_router_with_a_narrower_device_cuts_them_and_tells_its_size():
    """So packets of the tunnel, without DF, travel in fragments."""
    with line() as (here, router, there):
        run("ip", "-n", router, "link", "set", "far0", "mtu", "1300")
        run("ip", "-n", there, "link", "set", "far1", "mtu", "1300")
        assert ask(here, THERE) == (Way(True, False, True), 1300)


def test_nobody_there_is_no_answer():
    """Once an address does not resolve, the kernel says so; before, nothing comes."""
    with line() as (here, _, _):
        began = time.monotonic()
        assert ask(here, IPv4Address("198.18.7.9")) == (Way(False, False, False), FULL)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("group", ["0 0", "1 0"])
def test_ping_socket_and_raw_socket_see_the_same(group: str):
    """Root has the second in any case, the first where the host lets its group."""
    with line() as (here, _, _):
        run("ip", "netns", "exec", here, "sysctl", "-qw", f"net.ipv4.ping_group_range={group}")
        assert ask(here, ROUTER)[0] == Way(True, True, False)


def test_smallest_packet_is_headers_only():
    """As small and as large one."""
    with line() as (here, _, _), open(open_namespace(here), closefd=True) as file:  # noqa: PTH123
        way = in_namespace(file.fileno(), lambda: probe_way(HERE, ROUTER, HEADERS_SIZE, 0.4))
        assert way == Way(True, True, False)
