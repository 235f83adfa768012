"""pyroute2 on uvloop: fails loudly when a new pyroute2 no longer fits the override."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path

import pytest
import uvloop
from pyroute2 import AsyncIPRoute
from pyroute2.netlink.core import CoreDatagramProtocol
from pyroute2.netlink.exceptions import NetlinkError

from fwd.netlink.netns import open_namespace
from fwd.netlink.shim import in_namespace, netlink_socket, open_route
from tests.netlink.namespaces import namespace, open_descriptors

THREAD_NETNS = Path("/proc/thread-self/ns/net")
RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop.run}
both_loops = pytest.mark.parametrize("run", RUNNERS.values(), ids=RUNNERS)


def test_pyroute2_still_has_what_the_shim_overrides():
    """The method, the protocol's arguments and the attributes are those of the pinned release."""
    assert inspect.iscoroutinefunction(AsyncIPRoute.setup_endpoint)
    source = inspect.getsource(AsyncIPRoute.setup_endpoint)
    assert "create_datagram_endpoint" in source, "pyroute2 makes its transport in another way"
    assert "self.local.transport, self.local.protocol" in source
    parameters = list(inspect.signature(CoreDatagramProtocol).parameters)
    assert parameters == ["on_con_lost", "enqueue", "error_event", "status"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # uvloop's, there
def test_shim_is_still_needed():
    """When plain AsyncIPRoute runs on uvloop, the shim can go."""

    async def main():
        ipr = AsyncIPRoute()
        try:
            with pytest.raises(ValueError, match="invalid family 16"):
                await ipr.link_lookup(ifname="lo")
        finally:
            ipr.close()

    uvloop.run(main())


@both_loops
def test_requests_and_dumps_work(run):
    """A lookup, a dump in many messages, and an error that names its errno."""

    async def main():
        async with open_route() as ipr:
            [index] = await ipr.link_lookup(ifname="lo")
            names = [link.get("ifname") async for link in await ipr.link("dump")]
            assert "lo" in names
            routes = [row async for row in await ipr.route("dump", table=255)]
            assert any(row.get("oif") == index for row in routes)
            with pytest.raises(NetlinkError) as failure:
                await ipr.link("get", index=1 << 30)
            assert failure.value.code == 19

    run(main())


@both_loops
def test_two_sockets_at_once_and_many_requests(run):
    """Requests of concurrent tasks get their own answers; sequence numbers are recycled."""

    async def main():
        async with open_route() as one, open_route() as other:
            answers = await asyncio.gather(
                *(ipr.link_lookup(ifname="lo") for ipr in (one, other) for _ in range(50))
            )
            assert {tuple(answer) for answer in answers} == {(1,)}

    run(main())


@both_loops
def test_socket_is_closed_with_its_context(run):
    """No descriptor is left behind."""

    async def main():
        async with open_route() as ipr:
            await ipr.link_lookup(ifname="lo")
        before = open_descriptors()
        for _ in range(3):
            async with open_route() as ipr:
                await ipr.link_lookup(ifname="lo")
        await asyncio.sleep(0.01)
        assert open_descriptors() == before

    run(main())


@pytest.mark.netns
@both_loops
def test_links_are_made_in_another_namespace(run):
    """A socket opened inside a namespace speaks to it, the daemon's own stays as it is."""

    async def main(name):
        fd = open_namespace(name)
        try:
            async with open_route(in_namespace(fd, netlink_socket)) as pod, open_route() as own:
                await pod.link("add", ifname="fwdtv0", kind="veth", peer={"ifname": "fwdtv1"})
                assert len(await pod.link_lookup(ifname="fwdtv1")) == 1
                assert await own.link_lookup(ifname="fwdtv1") == []
        finally:
            os.close(fd)

    with namespace() as name:
        run(main(name))


@pytest.mark.netns
def test_calling_thread_stays_in_its_namespace():
    """Only the short-lived thread enters; failures come back to the caller."""
    own = THREAD_NETNS.readlink()
    with namespace() as name:
        fd = open_namespace(name)
        try:
            there = in_namespace(fd, THREAD_NETNS.readlink)
            assert there != own
            with pytest.raises(ZeroDivisionError):
                in_namespace(fd, lambda: 1 // 0)
        finally:
            os.close(fd)
    assert THREAD_NETNS.readlink() == own


def test_entering_what_is_no_namespace_is_an_error():
    """An ordinary descriptor gives the kernel's reason."""
    with Path("/dev/null").open("rb") as file, pytest.raises(OSError, match="entering a network"):
        in_namespace(file.fileno(), lambda: None)
