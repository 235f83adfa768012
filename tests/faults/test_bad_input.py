"""What a daemon finds and must not trust: stored descriptors, a taken port, a second daemon.

Whatever it is: a logged outcome, packets afterwards, and never one that policy denies.
a0, a1 -- TAPs -- fwd node1 (a manager keeps its descriptors) ==== fwd node2 -- TAP -- b0
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.restart import command_of
from fwd.control.lab import LabError
from fwd.netlink.tap import TUN_DEVICE
from tests.faults.downloads import A0, B0, Downloads
from tests.netns.managed import Managed, managed_node
from tests.netns.programs import fetch, nginx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.netns

TUNSETIFF, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
IFF_TUN, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 1, 2, 0x1000, 0x4000, 0x100


@pytest.fixture
def managed() -> Iterator[Managed]:
    """Two pods on node1, one on node2; packets flow."""
    with managed_node() as one:
        yield one


def guard(managed: Managed) -> dict[str, Any]:
    """Node1's file with a policy: b0 may have port 8080 of a0, nobody may have port 8081."""
    data = dict(managed.data)
    data["endpoints"] = [dict(row) for row in data["endpoints"]]
    data["endpoints"][0]["enforce"] = {"ingress": True}
    data["policy"] = [
        {"endpoint": "default/a0", "direction": "ingress", "identity": "any", "proto": "tcp",
         "port": 8080, "action": "allow"}
    ]  # fmt: skip
    return data


# ---- tables ----


def used_pages(fd: int) -> Iterator[int]:
    """Where a memfd has been written to, page by page."""
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        yield at
        at += 4096


@pytest.mark.parametrize("seed", range(3))
def test_scribbled_tables_deliver_nothing_that_policy_denies(managed: Managed, seed: int) -> None:
    """Random bytes in every second page: no crash; once the API answers all is as the file says."""
    managed.net.write(managed.node, guard(managed))
    managed.again()
    for port in (8080, 8081):
        nginx(managed.net, "a0", port)
    managed.manager.kill()
    fd, rng = managed.stored("arena"), random.Random(seed)
    pages = [at for at in used_pages(fd) if at or seed == 0]
    written = [at for at in pages if rng.random() < 0.5]
    assert len(written) > 10
    for at in written:
        os.pwrite(fd, rng.randbytes(rng.randint(1, 64)), at + rng.randrange(4000))
    managed.start()
    assert managed.said("tables taken over") or managed.said("the stored ones cannot be used")
    assert fetch(managed.net, "b0", f"http://{A0}:8080/") == ["a0"]
    assert fetch(managed.net, "b0", f"http://{A0}:8081/", max_s=1) == ["-"]


def test_older_tables_are_made_anew(managed: Managed) -> None:
    """As newer ones are (test_restart.py): the log names both versions."""
    managed.manager.kill()
    fd = managed.stored("arena")
    (version,) = struct.unpack("I", os.pread(fd, 4, 8))
    os.pwrite(fd, struct.pack("I", version - 1), 8)
    managed.start()
    assert managed.said(f"it has ABI version {version - 1} with a header of")
    assert managed.net.reaches("a0", B0)


def test_tables_of_another_boot_are_made_anew(managed: Managed) -> None:
    """Its clock is not ours: what would have expired may not."""
    managed.manager.kill()
    fd = managed.stored("arena")
    text = Path("/proc/sys/kernel/random/boot_id").read_text()
    boot_id = bytes.fromhex(text.strip().replace("-", ""))
    at = os.pread(fd, 4096, 0).index(boot_id)
    os.pwrite(fd, bytes(16), at)
    managed.start()
    assert managed.said("tables are made anew")
    assert managed.net.reaches("a0", B0)


# ---- devices ----


def other_header(managed: Managed) -> None:
    """Somebody has set another size of the vnet header."""
    fcntl.ioctl(managed.stored("pod"), TUNSETVNETHDRSZ, struct.pack("i", 10))


def foreign_tap(flags: int) -> Callable[[Managed], None]:
    """A TAP of other flags stands under the name of a0's."""

    def spoil(managed: Managed) -> None:
        fd = os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"fwdtest%d", flags))
        os.dup2(fd, managed.stored("pod"), inheritable=False)
        os.close(fd)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        other_header,
        foreign_tap(IFF_TAP | IFF_NO_PI),
        foreign_tap(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR),
        foreign_tap(IFF_TAP | IFF_VNET_HDR),
        foreign_tap(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE),
    ],
    ids=["header size", "no vnet header", "tun", "packet info", "multi-queue"],
)
def test_tap_with_other_flags_is_made_anew(
    managed: Managed, spoil: Callable[[Managed], None]
) -> None:
    """The log says what it is; the pod gets a device of ours, the other pod keeps its own."""
    before = managed.link("a1")
    managed.manager.kill()
    name = next(name for name in managed.manager.names() if name.startswith("pod-1000-"))
    spoil(managed)
    managed.start()
    assert managed.said(f"stored descriptor {name} dropped")
    assert managed.said("has flags 0x") or managed.said("has a vnet header of 10 bytes")
    assert managed.net.reaches("a0", B0)
    assert managed.link("a1") == before


@pytest.mark.parametrize("kind", ["tunnel", "host", "pod", "arena"])
def test_name_that_stands_for_two_descriptors(managed: Managed, kind: str) -> None:
    """The first is taken and the other let go of (of two tables, neither); so it is kept on."""
    managed.manager.kill()
    name, fd = next(one for one in managed.manager.kept if one[0].split("-")[0] == kind)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.setsockopt(socket.IPPROTO_IP, 8, 1)
        if kind == "tunnel":
            managed.manager.keep(name, other.fileno())
    if kind != "tunnel":
        copy = os.memfd_create("copy")
        os.write(copy, os.pread(fd, 1 << 16, 0) if kind == "arena" else b"")
        managed.manager.keep(name, copy)
        os.close(copy)
    assert managed.manager.names().count(name) == 2
    before = managed.link()
    for kill in (False, True):
        managed.start()
        assert managed.net.reaches("a0", B0)
        assert managed.link() == before
        assert managed.manager.names().count(name) == 1
        if kill:
            managed.manager.kill()
        else:
            managed.manager.end()
    managed.start()
    told = "the store has more than one arena" if kind == "arena" else f"{name} dropped"
    assert managed.said(told)


# ---- a host that is not ours alone ----


def test_second_daemon_is_refused_and_the_first_goes_on(managed: Managed) -> None:
    """It names who has the port, exits 1 and touches nothing."""
    before = managed.link(), managed.net.lab.run("node1", "ip", "route").stdout
    done = managed.net.lab.run(
        "node1", sys.executable, "-m", "fwd", "run", "--config", str(managed.node.config),
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "UDP port 8472 is owned by" in done.stderr
    assert f"python (pid {managed.manager.pid}): stop it" in done.stderr
    assert (managed.link(), managed.net.lab.run("node1", "ip", "route").stdout) == before
    assert managed.net.reaches("a0", B0)
    assert len(managed.net.rows(managed.node, "endpoint")) == 2


def test_port_of_a_kernel_vxlan(managed: Managed) -> None:
    """The start fails and names the device; stored descriptors wait for the next one."""
    managed.manager.end(restart=False)
    net = managed.net
    net.lab.run("node1", "ip", "link", "add", "vx7", "type", "vxlan", "id", "7", "dstport", "8472",
                "dev", "eth0")  # fmt: skip
    net.lab.run("node1", "ip", "link", "set", "vx7", "up")
    managed.manager.start(command_of(net, managed.node))
    net.lab.wait_for("the daemon to end", lambda: not managed.manager.running())
    assert managed.said("owned by the kernel's VXLAN device vx7: `ip link del vx7`")
    net.lab.run("node1", "ip", "link", "del", "vx7")
    managed.start()
    assert net.reaches("a0", B0)


# ---- a change under load ----


def test_router_address_changes_under_load(managed: Managed) -> None:
    """A reload: devices are made again, a stream is whole all the same, policy holds throughout."""
    net = managed.net
    data = guard(managed)
    net.write(managed.node, data)
    managed.again()
    downloads = Downloads(net, 2 << 20)
    nginx(net, "a0", 8081)
    digest = "sha256sum | cut -c1-64"
    slow = f"curl -sS --limit-rate 700k http://{B0}:8080/data | {digest}"
    stream = net.lab.spawn("a0", "sh", "-c", slow, log="stream.log")
    denied = net.lab.spawn(
        "b0", "sh", "-c",
        f"for i in 1 2 3 4 5 6 7 8; do curl -s -m 0.4 http://{A0}:8081/ && echo PASSED; done",
        log="denied.log",
    )  # fmt: skip
    time.sleep(0.5)
    net.write(managed.node, {**data, "node": {**data["node"], "router_ip": "10.244.0.151"}})
    began = time.monotonic()
    net.fwd(managed.node, "reload")
    net.lab.wait_for("a0 to be back", lambda: net.ping("a0", B0).returncode == 0, timeout_s=3)
    print(f"router address changed: a0 back after {time.monotonic() - began:.2f} s")
    stream.wait(timeout=30)
    denied.wait(timeout=30)
    whole = net.lab.run("b0", "sh", "-c", f"curl -sS http://{B0}:8080/data | {digest}").stdout
    assert net.lab.log("stream.log") == whole.strip()
    assert "PASSED" not in net.lab.log("denied.log")
    downloads.check()
    assert net.balance(managed.node)["missing"] == 0
    rows = json.loads(net.lab.run("node1", "ip", "-j", "addr").stdout)
    (host,) = [row for row in rows if row["ifname"] == "cilium_host"]
    assert {one["local"] for one in host["addr_info"]} == {"10.244.0.151"}
    with pytest.raises(LabError):
        net.lab.run("node1", "sh", "-c", "ip addr | grep -q 10.244.0.150 || exit 1")
