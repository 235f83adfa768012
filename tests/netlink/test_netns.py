"""Namespaces by name and path, and what is said when there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fwd.netlink.errors import LinkError
from fwd.netlink.netns import namespace_path, open_namespace
from tests.netlink.namespaces import namespace, open_descriptors


def test_name_and_path_are_told_apart():
    """A slash makes it a path."""
    assert namespace_path("curl") == Path("/run/netns/curl")
    assert namespace_path("/proc/1/ns/net") == Path("/proc/1/ns/net")


def test_own_namespace_opens_by_path():
    """The descriptor stands for it and is closed on exec."""
    fd = open_namespace("/proc/self/ns/net")
    try:
        assert os.path.sameopenfile(fd, fd)
        assert os.fstat(fd).st_ino == Path("/proc/self/ns/net").stat().st_ino
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.netns
def test_named_namespace_opens():
    """As `ip netns` made it."""
    with namespace() as name:
        fd = open_namespace(name)
        assert os.fstat(fd).st_ino != Path("/proc/self/ns/net").stat().st_ino
        os.close(fd)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("fwdt-none", r"fwdt-none is missing .*create it with `ip netns add fwdt-none`"),
        ("/proc/999999999/ns/net", r"is missing .*`ip netns attach NAME PID`, give the name"),
        ("/nowhere/net", r"missing .*check the path"),
        ("/proc/self/ns/mnt", "no network namespace"),
        ("/proc/self/status", "no network namespace"),
        ("/proc/self/status/x", "Not a directory"),
    ],
)
def test_what_is_no_namespace_is_refused(what, text):
    """Each error names the object and the next step, and leaves no descriptor."""
    before = open_descriptors()
    with pytest.raises(LinkError, match=text):
        open_namespace(what)
    assert open_descriptors() == before


@pytest.mark.netns
def test_deleted_namespace_whose_name_is_left_is_refused(tmp_path):
    """`ip netns` leaves an empty file when its mount is gone."""
    leftover = tmp_path / "pod"
    leftover.touch()
    with pytest.raises(LinkError, match="no network namespace"):
        open_namespace(str(leftover))


def test_fifo_does_not_hang_the_daemon(tmp_path):
    """A path that blocks on open is refused like any other."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(LinkError, match="no network namespace"):
        open_namespace(str(fifo))
