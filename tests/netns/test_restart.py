"""A daemon ended and started again by a manager that keeps its descriptors: nothing is lost.

The manager is benchmarks/manager.py, the load benchmarks/load.py; the topology is in worlds.py.
"""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.load import Load
from benchmarks.restart import command_of, largest
from fwd.netlink.tap import open_tap
from tests.netns.managed import Managed, managed_node
from tests.netns.programs import fetch, nginx
from tests.netns.worlds import dual_stack, two_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.netns
IN_HAND = 512
"""Datagrams a killed daemon may have read and not passed on: four trains of 128."""


@pytest.fixture
def managed() -> Iterator[Managed]:
    """Two pods on node1, one on node2; packets flow."""
    with managed_node() as one:
        yield one


def test_five_restarts_in_a_row_lose_nothing(managed: Managed) -> None:
    """SIGTERM and SIGKILL in turn under load: nothing lost, reset or damaged, the gap is short."""
    load = Load(managed.net, rate=2000, flows=50, size=40 << 20, speed=4 << 20)
    time.sleep(0.5)
    ends = []
    for position in range(5):
        ends.append(time.monotonic())
        managed.again(kill=position % 2 == 1)
        time.sleep(0.5)
    result = load.finish()
    assert result["reset"] == 0
    assert result["opened"] == 50
    assert result["whole"]
    assert result["sent"] > 10_000
    kills = [(ends[i], ends[i + 1]) for i in (1, 3)]
    for holes in result["holes"]:
        in_kills = sum(n for at, n in holes if any(a <= at < b for a, b in kills))
        assert sum(n for _, n in holes) == in_kills, "lost without a kill"
        assert in_kills <= IN_HAND * len(kills)
    for gaps in result["gaps"]:
        assert largest(gaps, ends[0], time.monotonic()) < 2000, "longer than the queues bridge"


def test_restart_changes_nothing_that_a_pod_sees(managed: Managed) -> None:
    """Device, addresses, host routes and connections are the same ones after both kinds of end."""
    before = managed.link(), managed.net.lab.run("node1", "ip", "route").stdout
    nginx(managed.net, "b0")
    assert fetch(managed.net, "a0", "http://10.244.2.10:8080/") == ["b0"]
    entries = managed.connections()
    assert entries
    names = managed.manager.names()
    for kill in (False, True):
        managed.again(kill=kill)
        assert (managed.link(), managed.net.lab.run("node1", "ip", "route").stdout) == before
        assert entries <= managed.connections()
        assert sorted(managed.manager.names()) == sorted(names)
        assert managed.net.reaches("a0", "10.244.2.10")
    assert managed.said("tables taken over")


def test_end_while_the_rest_is_being_loaded(managed: Managed) -> None:
    """A daemon that forwards and has read nothing yet ends in order, and the next takes over."""
    before = managed.link()
    managed.manager.kill()
    managed.manager.start(command_of(managed.net, managed.node))
    assert managed.manager.ready.wait(10)
    assert managed.manager.end() == 0
    assert managed.link() == before
    managed.start()
    assert managed.link() == before
    assert managed.net.reaches("a0", "10.244.2.10")
    assert not managed.said("connections are forgotten")


def test_stop_for_good_takes_everything_down(managed: Managed) -> None:
    """After `systemctl stop` pods have no eth0, and a later start is a first one."""
    assert managed.manager.end(restart=False) == 0
    assert managed.link() is None
    assert "cilium_host" not in managed.net.lab.run("node1", "ip", "link").stdout
    assert managed.manager.kept == []
    managed.start()
    assert managed.net.reaches("a0", "10.244.2.10")


def test_policy_changed_meanwhile_holds_after_the_start(managed: Managed) -> None:
    """What the file denies when the daemon starts is denied once its API answers."""
    nginx(managed.net, "a0")
    url = "http://10.244.0.10:8080/"
    assert fetch(managed.net, "b0", url) == ["a0"]
    managed.manager.kill()
    data = dict(managed.data)
    data["endpoints"] = [dict(row) for row in data["endpoints"]]
    data["endpoints"][0]["enforce"] = {"ingress": True}
    managed.net.write(managed.node, data)
    managed.start()
    assert fetch(managed.net, "b0", url, max_s=1) == ["-"]
    assert managed.link() is not None


def truncated(fd: int) -> None:
    """Half of the tables are gone."""
    os.ftruncate(fd, os.fstat(fd).st_size // 2)


def foreign(fd: int) -> None:
    """The memfd is somebody else's."""
    os.pwrite(fd, b"something else", 0)


def other_abi(fd: int) -> None:
    """Another build made it."""
    (version,) = struct.unpack("I", os.pread(fd, 4, 8))
    os.pwrite(fd, struct.pack("I", version + 1), 8)


def damaged(fd: int) -> None:
    """A capacity in the header is another one than its tables'."""
    os.pwrite(fd, b"\xff" * 4, 32)


def empty(fd: int) -> None:
    """There is nothing in it."""
    os.ftruncate(fd, 0)


@pytest.mark.parametrize("spoil", [truncated, foreign, other_abi, damaged, empty])
def test_unusable_tables_are_made_anew_and_devices_kept(
    managed: Managed, spoil: Callable[[int], None]
) -> None:
    """The log says so, pods keep their devices, and packets flow by the node file."""
    before = managed.link()
    managed.manager.kill()
    spoil(managed.stored("arena"))
    managed.start()
    assert managed.link() == before
    assert managed.net.reaches("a0", "10.244.2.10")
    assert managed.said("stored descriptor arena dropped")
    assert managed.said("tables are made anew, connections are forgotten")
    assert sum(name == "arena" for name in managed.manager.names()) == 1
    managed.again(kill=True)
    assert managed.said("tables taken over"), "the new ones were stored"


def test_devices_without_tables_are_kept(managed: Managed) -> None:
    """A store without an arena is the same."""
    before = managed.link()
    managed.manager.kill()
    managed.manager.kept = [one for one in managed.manager.kept if one[0] != "arena"]
    managed.start()
    assert managed.link() == before
    assert managed.said("the store has devices but no tables")
    assert managed.net.reaches("a0", "10.244.2.10")


def test_vanished_device_is_made_again(managed: Managed) -> None:
    """Somebody deleted eth0 while no daemon ran."""
    managed.manager.kill()
    managed.net.lab.ip("-n", managed.net.lab.name("a0"), "link", "del", "eth0")
    managed.start()
    assert managed.said("its device is gone")
    assert managed.link() is not None
    assert managed.net.reaches("a0", "10.244.2.10")
    names = [name for name in managed.manager.names() if name.startswith("pod-1000-")]
    assert len(names) == 1


def test_removed_endpoint_loses_its_device(managed: Managed) -> None:
    """More pods in the store than in the node file: theirs go, the others stay."""
    before = managed.link()
    managed.manager.kill()
    managed.net.write(managed.node, {**managed.data, "endpoints": managed.data["endpoints"][:1]})
    managed.start()
    managed.net.lab.wait_for("a1's eth0 to go", lambda: managed.link("a1") is None)
    assert managed.said("the node file has no endpoint like it")
    assert managed.link() == before
    assert managed.net.reaches("a0", "10.244.2.10")
    assert not [name for name in managed.manager.names() if name.startswith("pod-1001-")]


def test_endpoint_of_the_same_id_gets_a_device_of_its_own(managed: Managed) -> None:
    """Another address under an old id: nothing for the one reaches the other's device."""
    managed.manager.kill()
    rows = [dict(row) for row in managed.data["endpoints"]]
    rows[0]["ip"] = "10.244.0.77"
    managed.net.write(managed.node, {**managed.data, "endpoints": rows})
    managed.start()
    link = managed.link()
    assert link is not None
    assert "10.244.0.77" in {row["local"] for row in link["addr_info"]}
    assert managed.said("replaced=True")
    assert managed.net.reaches("a1", "10.244.0.77")
    assert not managed.net.reaches("a1", "10.244.0.10")


def test_foreign_descriptors_are_dropped(managed: Managed) -> None:
    """A pipe, a TAP with other flags, and a socket of another kind: each is told and let go."""
    managed.manager.kill()
    read, write = os.pipe()
    managed.manager.keep("whatever", read)
    managed.replace("tunnel", write)
    before = open_tap("fwdtest%d")
    managed.manager.keep("pod-77-1-aabbccddeeff-1-00", before.fd)
    for fd in (read, write, before.fd):
        os.close(fd)
    managed.start()
    for name in ("whatever", "tunnel"):
        assert managed.said(f"stored descriptor {name} dropped"), name
        assert name == "tunnel" or name not in managed.manager.names()
    gone = Path(f"/sys/class/net/{before.name}")
    managed.net.lab.wait_for("the strange TAP to go", lambda: not gone.exists())
    assert managed.net.reaches("a0", "10.244.2.10")


def test_other_tunnel_port_takes_another_socket(managed: Managed) -> None:
    """The stored one is let go of; the old port is free."""
    managed.manager.kill()
    managed.net.write(managed.node, {**managed.data, "tunnel": {"port": 8500}})
    managed.start()
    listening = managed.net.lab.run("node1", "ss", "-lunH").stdout
    assert ":8500 " in listening
    assert ":8472 " not in listening


def test_router_address_changes_with_the_file(managed: Managed) -> None:
    """cilium_host stays, with the new address and no old one."""
    managed.manager.kill()
    node = {**managed.data["node"], "router_ip": "10.244.0.151"}
    managed.net.write(managed.node, {**managed.data, "node": node})
    managed.start()
    rows = json.loads(managed.net.lab.run("node1", "ip", "-j", "addr").stdout)
    (host,) = [row for row in rows if row["ifname"] == "cilium_host"]
    assert {one["local"] for one in host["addr_info"]} == {"10.244.0.151"}
    assert "src 10.244.0.150" not in managed.net.lab.run("node1", "ip", "route").stdout
    assert managed.net.reaches("a0", "10.244.2.10")


def test_host_of_both_families_is_taken_over_as_it_is(managed: Managed) -> None:
    """IPv6 addresses, routes to services and pods: nothing is added, removed or refused."""
    files = dual_stack([managed.data, {**two_nodes([], [])[1]}])
    service = {
        "name": "default/web",
        "frontend": "10.96.0.10",
        "port": 80,
        "backends": [{"ip": "10.244.2.10", "port": 8080}],
    }
    managed.net.write(managed.node, {**files[0], "services": [service]})
    managed.again()

    def state() -> list[str]:
        commands = (["ip", "route"], ["ip", "-6", "route"], ["ip", "-br", "addr"])
        return [managed.net.lab.run("node1", *words).stdout for words in commands]

    before = state()
    assert "10.96.0.10 dev cilium_host" in before[0]
    assert "fd00:1::/64 dev cilium_host" in before[1]
    for kill in (True, False):
        managed.again(kill=kill)
        assert state() == before
    managed.manager.kill()
    managed.net.write(managed.node, files[0])
    managed.start()
    assert "10.96.0.10" not in state()[0]
    assert state()[1] == before[1]


def test_other_conntrack_capacity_keeps_the_connections(managed: Managed) -> None:
    """Tables in the store keep their size; the log says until when."""
    nginx(managed.net, "b0")
    assert fetch(managed.net, "a0", "http://10.244.2.10:8080/") == ["b0"]
    entries = managed.connections()
    assert entries
    managed.manager.kill()
    managed.net.write(
        managed.node, {**managed.data, "conntrack": {"capacity": {"tcp": 8192, "any": 4096}}}
    )
    managed.start()
    assert managed.said("conntrack.capacity.tcp: stays 4096")
    assert entries <= managed.connections()


def test_wrong_node_file_leaves_the_devices(managed: Managed) -> None:
    """The start is refused with the line; what is stored is there for the next one."""
    before = managed.link()
    managed.manager.kill()
    text = managed.node.config.read_text()
    managed.node.config.write_text("node: 1\n")
    managed.manager.start(command_of(managed.net, managed.node))
    managed.net.lab.wait_for("the refusal", lambda: managed.said("node1.yaml:1"))
    assert managed.link() == before
    assert managed.manager.end() == 0
    assert managed.link() == before
    managed.node.config.write_text(text)
    managed.start()
    assert managed.link() == before
    assert managed.net.reaches("a0", "10.244.2.10")


def test_masquerading_outlives_a_restart_and_not_a_stop(managed: Managed) -> None:
    """The kernel's switch and table are there until the service is stopped for good."""

    def state() -> tuple[str, bool]:
        switch = managed.net.lab.run("node1", "sysctl", "-n", "net.ipv4.ip_forward").stdout
        tables = managed.net.lab.run("node1", "nft", "list", "tables").stdout
        return switch.strip(), "fwd_masquerade" in tables

    assert state() == ("0", False)
    data = {**managed.data, "features": {"masquerade": True}}
    managed.net.write(managed.node, data)
    managed.again()
    assert state() == ("1", True)
    assert managed.manager.end() == 0
    assert state() == ("1", True)
    managed.start()
    managed.again(kill=True)
    assert state() == ("1", True)
    managed.manager.end(restart=False)
    assert state() == ("0", False)


def test_services_from_outside_outlive_a_restart(managed: Managed) -> None:
    """cilium_net and its steering stay for the next daemon."""
    managed.net.write(managed.node, {**managed.data, "features": {"nodeport": True}})
    managed.again()

    def device() -> int:
        rows = json.loads(managed.net.lab.run("node1", "ip", "-j", "link").stdout)
        return next((row["ifindex"] for row in rows if row["ifname"] == "cilium_net"), 0)

    before = device()
    assert before
    managed.again(kill=True)
    managed.again()
    assert device() == before
    assert "fwd_outside" in managed.net.lab.run("node1", "nft", "list", "tables").stdout
    managed.net.write(managed.node, managed.data)
    managed.again()
    managed.net.lab.wait_for("cilium_net to go", lambda: not device())
    assert "fwd_outside" not in managed.net.lab.run("node1", "nft", "list", "tables").stdout
