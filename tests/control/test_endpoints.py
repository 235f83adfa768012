"""The life of endpoint devices, on real TAPs and with a pump that only writes down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import uvloop

from fwd.config.load import ConfigError, parse_node_text
from fwd.control.endpoints import EndpointDevices
from tests.control.daemons import NodeText, Pod, free_port, pod
from tests.netlink.namespaces import ip_json, namespace, open_descriptors

if TYPE_CHECKING:
    from pathlib import Path

    from fwd.config.schema import NodeFile

pytestmark = pytest.mark.netns


@dataclass
class Ports:
    """Stands in for the pump: which ports are watched."""

    watched: set[int] = field(default_factory=set)

    def add_tap(self, port: int, fd: int, vnet_hdr_size: int) -> None:
        """Watch; twice is a mistake."""
        assert port not in self.watched
        assert (fd > 0, vnet_hdr_size) == (True, 12)
        self.watched.add(port)

    def remove(self, port: int) -> None:
        """Stop watching; only what is watched."""
        self.watched.remove(port)


def node(tmp_path: Path, *pods: Pod) -> NodeFile:
    """A node file with these pods."""
    text = NodeText(tmp_path / "n.yaml", free_port(), pods=list(pods))
    text.write()
    return parse_node_text(text.path.read_text(), text.path)


def eth0(one: Pod) -> str | None:
    """The address of a pod's eth0, None without one."""
    rows = ip_json(one.netns, "addr", "show")
    found = [a["local"] for row in rows if row["ifname"] == "eth0" for a in row["addr_info"]]
    return found[0] if found else None


async def switch(devices: EndpointDevices, file: NodeFile) -> None:
    """Go over to a file."""
    await devices.commit(await devices.prepare(file))


def test_prepared_devices_are_not_watched_before_commit(tmp_path):
    """No packet passes before the tables are written; the compiler gets the ifindexes."""

    async def main(a, b):
        ports = Ports()
        devices = EndpointDevices(ports, 1450)
        change = await devices.prepare(node(tmp_path, a, b))
        assert ports.watched == set()
        assert (eth0(a), eth0(b)) == (a.ip, b.ip)
        assert {name: link.ifindex > 1 for name, link in change.links.items()} == {
            "a": True,
            "b": True,
        }
        await devices.commit(change)
        assert ports.watched == {10, 11}
        assert devices.states() == {10: "ready", 11: "ready"}
        await devices.close()
        assert (ports.watched, devices.states()) == (set(), {})
        assert (eth0(a), eth0(b)) == (None, None)

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_failed_preparation_takes_everything_back(tmp_path):
    """One impossible pod: the new ones vanish, the replaced one gets its old device again."""

    async def main(a, b, x):
        ports = Ports()
        devices = EndpointDevices(ports, 1450)
        await switch(devices, node(tmp_path, a))
        before = open_descriptors()
        moved = Pod("a", 10, a.netns, mac="02:00:00:00:00:99")
        with pytest.raises(ConfigError, match=r"n\.yaml:9: endpoint x: naming the device"):
            await devices.prepare(node(tmp_path, moved, b, x))
        assert (eth0(a), eth0(b)) == (a.ip, None)
        assert ports.watched == {10}
        assert devices.states() == {10: "ready"}
        assert open_descriptors() == before
        await devices.close()

    with pod("a", 10) as a, pod("b", 11) as b:
        # x wants the namespace that a is about to give up for its own new device
        uvloop.run(main(a, b, Pod("x", 12, a.netns)))


def test_rollback_after_preparation_restores_the_old_devices(tmp_path):
    """The tables refused: as before, replaced devices included."""

    async def main(a, b, c):
        ports = Ports()
        devices = EndpointDevices(ports, 1450)
        old = node(tmp_path, a, b)
        await switch(devices, old)
        change = await devices.prepare(node(tmp_path, Pod("a", 20, a.netns), c))
        assert (eth0(a), eth0(b), eth0(c)) == ("10.0.1.20", b.ip, c.ip)
        await devices.rollback(old, change)
        assert (eth0(a), eth0(b), eth0(c)) == (a.ip, b.ip, None)
        assert ports.watched == {10, 11}
        await devices.close()

    with pod("a", 10) as a, pod("b", 11) as b, pod("c", 12) as c:
        uvloop.run(main(a, b, c))


@pytest.mark.parametrize("swap", ["rename", "netns", "id"])
def test_pods_may_change_places(tmp_path, swap):
    """Names, namespaces or ids of two pods exchanged: both end up as the new file says."""

    async def main(a, b):
        ports = Ports()
        devices = EndpointDevices(ports, 1450)
        await switch(devices, node(tmp_path, a, b))
        new = {
            "rename": [Pod("b", 10, a.netns), Pod("a", 11, b.netns)],
            "netns": [Pod("a", 10, b.netns), Pod("b", 11, a.netns)],
            "id": [Pod("a", 11, a.netns), Pod("b", 10, b.netns)],
        }[swap]
        await switch(devices, node(tmp_path, *new))
        assert ports.watched == {10, 11}
        assert [eth0(one) for one in new] == [one.ip for one in new]
        await devices.close()

    with pod("a", 10) as a, pod("b", 11) as b:
        uvloop.run(main(a, b))


def test_unchanged_pod_keeps_its_device(tmp_path):
    """Same file again: no device is touched."""

    async def main(a):
        devices = EndpointDevices(Ports(), 1450)
        await switch(devices, node(tmp_path, a))
        change = await devices.prepare(node(tmp_path, a))
        assert (change.fresh, change.replaced, change.removed) == ([], [], [])
        await devices.commit(change)
        await devices.close()

    with pod("a", 10) as a:
        uvloop.run(main(a))


def test_vanished_device_is_marked_and_made_again_when_its_namespace_is_back(tmp_path):
    """Until then a reload leaves it gone and does not fail."""

    async def main():
        ports = Ports()
        devices = EndpointDevices(ports, 1450)
        with namespace() as name:
            a = Pod("a", 10, name)
            file = node(tmp_path, a)
            await switch(devices, file)
        ports.watched.discard(10)  # what the pump does on EBADFD
        assert devices.mark_gone(99) is None
        assert devices.mark_gone(10).name == "a"
        assert devices.mark_gone(10).name == "a"
        assert (devices.states(), devices.lost) == ({10: "gone"}, 1)
        await switch(devices, file)
        assert devices.states() == {10: "gone"}
        with namespace() as name:
            await switch(devices, node(tmp_path, Pod("a", 10, name)))
            assert devices.states() == {10: "ready"}
            await devices.close()
        await asyncio.sleep(0.05)

    uvloop.run(main())
