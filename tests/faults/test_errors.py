"""System calls that fail: no crash, counted, the fallback works, and all is well afterwards.

a0 -- TAP -- fwd node1 (its calls fail) ==== UDP 8472 ==== fwd node2 -- TAP -- b0
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fwd.control.lab import Lab, LabError
from tests.faults.downloads import A0, B0, Downloads, status_of
from tests.faults.errors import CALLS, Errors
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.control.topology import LabNode

pytestmark = pytest.mark.netns
ERRORS = ("ENOBUFS", "EAGAIN", "EINVAL", "EIO", "ENOMEM", "EBADFD")
DATA = ("read", "writev", "sendmsg", "sendmmsg", "recvmmsg", "ppoll", "epoll_wait", "epoll_pwait2")
"""Calls while packets move."""
DEVICE_GONE = {"read": {errno.EIO, errno.EBADFD}, "writev": {errno.EBADFD}}
"""What a TAP says whose link was deleted: it is let go of, until the next reload."""
WAITED_FOR = {errno.ENOBUFS, errno.EAGAIN}
HARMLESS = {
    "read": {errno.EAGAIN}, "recvmmsg": {errno.EAGAIN}, "writev": set(),
    "sendmmsg": WAITED_FOR, "sendmsg": WAITED_FOR,
}  # fmt: skip
"""Errors that cost a second try at most; as often as a batch is ready to wait, four times."""
COUNTED = {
    "read": ("rx_errors",),
    "recvmmsg": ("rx_errors",),
    "writev": ("tap_write_errors", "tap_split"),
    "sendmmsg": ("udp_send_errors", "udp_segment_refused"),
    "sendmsg": ("udp_send_errors",),
    "ppoll": ("udp_send_errors",), "epoll_wait": (), "epoll_pwait2": (),
}  # fmt: skip
UNCOUNTED = {"ppoll", "epoll_wait", "epoll_pwait2"}
"""A wait that fails is none: nothing is lost by it."""


@dataclass
class Shaky:
    """Two nodes; node1's calls fail to order."""

    net: Net
    node: LabNode
    errors: Errors
    downloads: Downloads | None = None

    def pump(self) -> dict[str, int]:
        """Counters of node1's pump."""
        found: dict[str, int] = status_of(self.node)["pump"]
        return found

    def order(self, call: str, error: int, **how: int) -> None:
        """Let a call fail; where it is a fallback's, let what it stands behind fail, too."""
        if call == "sendmsg" and error:  # a train's datagrams go one by one
            self.errors.order("sendmmsg", errno.EINVAL, every=2, trains=True)
        if call == "ppoll" and error:  # it waits for a full socket
            self.errors.order("sendmmsg", errno.EAGAIN, every=3)
        self.errors.order(call, error, **how)

    def lift(self) -> None:
        """Let all calls pass."""
        for call in DATA:
            self.errors.order(call, 0)

    def renew(self) -> None:
        """Switch trains off and on again, and have devices that were let go of made again."""
        text = self.node.config.read_text()
        self.node.config.write_text(f"{text}\nfeatures: {{offload: {{udp_segment: false}}}}\n")
        self.net.fwd(self.node, "reload")
        self.node.config.write_text(text)
        self.net.fwd(self.node, "reload")


@pytest.fixture(scope="module")
def shaky() -> Iterator[Shaky]:
    """One pod a node, a file to fetch in both."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        errors = Errors(lab.directory)
        node, peer = (
            net.add_node(data) for data in two_nodes([pod("node1", 0)], [pod("node2", 0)])
        )
        net.wire(node, peer)
        net.start(node, env=errors.env)
        net.start(peer)
        yield Shaky(net, node, errors, Downloads(net, 4 << 20))
        net.check()


@pytest.fixture
def own() -> Iterator[Shaky]:
    """One node with one pod, not started."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        files = two_nodes([pod("node1", 0)], [pod("node2", 0)])
        node, peer = (net.add_node(data) for data in files)
        net.wire(node, peer)
        yield Shaky(net, node, Errors(lab.directory))


def offload_of(node: LabNode) -> dict[str, bool]:
    """Offloads in use."""
    found: dict[str, bool] = status_of(node)["offload"]
    return found


@pytest.mark.skipif("FWD_TEST_EXTENSION" in os.environ, reason="sanitizers import more")
def test_all_calls_of_the_packet_path_can_fail():
    """What the extension imports to reach the kernel is in errors.c, or is used at start only."""
    at_start = {
        "mmap64", "munmap", "ftruncate64", "fstat64", "madvise", "close", "getsockname",
        "epoll_create1", "clock_gettime", "__errno_location",
    }  # fmt: skip
    plain = {"calloc", "free", "inet_ntop", "snprintf", "vsnprintf", "strerror"}
    never_fails = {"sched_yield"}
    text = {"memchr", "memcmp", "memcpy", "memmove", "memset", "strlen"}
    extension = importlib.util.find_spec("fwd.datapath._fwd")
    assert extension is not None
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension.origin)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    names = set(re.findall(r" U (\w+)@GLIBC", listing))
    assert names - at_start - plain - never_fails - text == set(CALLS[: CALLS.index("TUNSETIFF")])


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("call", DATA)
def test_failing_call(shaky: Shaky, call: str, name: str) -> None:
    """Up to four calls fail during two downloads: both are whole, and each failure is counted."""
    error = getattr(errno, name)
    before = shaky.pump()
    gone = call in {"read", "writev"} and error in DEVICE_GONE[call]
    shaky.order(call, error, every=1 if gone else 3, times=1 if gone else 4)
    if gone:
        assert shaky.net.ping("a0", B0).returncode != 0
    else:
        shaky.downloads.check()
    hits = shaky.errors.hits(call)
    assert 0 < hits <= (1 if gone else 4)
    shaky.lift()
    after = shaky.pump()
    counted = {key: after[key] - before[key] for key in after}
    told = sum(counted[key] for key in COUNTED[call])
    if call in UNCOUNTED or error in HARMLESS[call]:
        assert told == 0, counted
    else:
        assert told >= hits, counted
    if gone:
        assert "device gone" in shaky.net.lab.log(shaky.node.log)
    if gone or not offload_of(shaky.node)["udp_segment"]:
        shaky.renew()
        shaky.downloads.check()
    assert offload_of(shaky.node)["udp_segment"]
    assert shaky.net.ping("a0", B0).returncode == 0


@pytest.mark.parametrize("call", DATA)
def test_call_that_fails_for_a_while(shaky: Shaky, call: str) -> None:
    """Nothing passes, the daemon answers all the same, and packets pass once it is over."""
    shaky.order(call, errno.ENOBUFS)
    pings = shaky.net.lab.spawn("a0", "ping", "-i", "0.05", "-w", "1", B0, log=f"{call}.log")
    asked = time.monotonic()
    assert shaky.pump()["rx_syscalls"] > 0
    assert time.monotonic() - asked < 0.5
    pings.wait(timeout=10)
    if call not in {"sendmsg", "ppoll"}:  # a ping needs neither
        assert shaky.errors.hits(call) > 0
    shaky.lift()
    assert shaky.net.ping("a0", B0).returncode == 0
    assert shaky.net.ping("b0", A0).returncode == 0


def test_device_that_cannot_finish_checksums(shaky: Shaky) -> None:
    """EIO for a train: its datagrams go one by one, and no more trains are made; it is told."""
    shaky.order("sendmmsg", errno.EIO, trains=True, times=1)
    shaky.downloads.check()
    assert shaky.errors.hits("sendmmsg") == 1
    assert not offload_of(shaky.node)["udp_segment"]
    shaky.net.lab.wait_for(
        "the report", lambda: "offload off" in shaky.net.lab.log(shaky.node.log), timeout_s=5
    )
    shaky.lift()
    shaky.renew()
    assert offload_of(shaky.node)["udp_segment"]


def test_kernel_without_epoll_pwait2(shaky: Shaky) -> None:
    """ENOSYS once: it is not asked again; packets flow."""
    shaky.order("epoll_pwait2", errno.ENOSYS, times=1)
    shaky.downloads.check()
    assert (shaky.errors.hits("epoll_pwait2"), shaky.errors.calls("epoll_pwait2")) == (1, 1)


# ---- starting ----

OPEN = """
import errno, os, sys
from fwd.netlink.errors import LinkError
from fwd.netlink.tap import adopt_tap, open_tap
from tests.faults.errors import Errors
rules = Errors.attach(sys.argv[1])
tap = open_tap("fwdtest%d")
for call in ("TUNSETIFF", "TUNSETOFFLOAD", "TUNSETVNETHDRSZ", "TUNGETIFF", "TUNGETVNETHDRSZ"):
    for name in sys.argv[2:]:
        rules.order(call, getattr(errno, name))
        before = len(os.listdir("/proc/self/fd"))
        try:
            adopt_tap(tap.fd) if call.startswith("TUNGET") else open_tap("fwdtest%d").close()
            said = "nothing"
        except LinkError as error:
            said = str(error)
        print(call, name, rules.hits(call), len(os.listdir("/proc/self/fd")) - before, said)
        rules.order(call, 0)
"""


def test_tap_that_cannot_be_made_or_taken_over(shaky: Shaky) -> None:
    """Every ioctl, every error: one sentence that names the device, and no descriptor is left."""
    done = shaky.net.lab.run(
        "a0", "env", *(f"{key}={value}" for key, value in shaky.errors.env.items()),
        sys.executable, "-c", OPEN, shaky.errors.env["FWD_TEST_ERRORS"], *ERRORS,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 5 * len(ERRORS)
    for line in lines:
        call, name, hits, left, said = line.split(maxsplit=4)
        assert (hits, left) == ("1", "0"), line
        wants = os.strerror(getattr(errno, name))
        if (call, name) in {("TUNGETIFF", "EBADFD"), ("TUNGETVNETHDRSZ", "EBADFD")}:
            wants = "its device is gone"
        assert wants in said, line
        assert call.startswith("TUNGET") or "fwdtest" in said, line


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("TUNSETIFF", "making TAP fwdtap%d: Cannot allocate memory"),
        ("epoll_ctl", "in the epoll set: Cannot allocate memory"),
    ],
)
def test_start_that_fails_leaves_nothing(own: Shaky, call: str, said: str) -> None:
    """The daemon says why, exits 1, and a second try finds a clean host."""
    own.errors.order(call, errno.ENOMEM, times=1)
    with pytest.raises(LabError, match="exited 1"):
        own.net.start(own.node, env=own.errors.env)
    assert own.errors.hits(call) == 1
    assert said in own.net.lab.log(own.node.log)
    for short in ("a0", "node1"):
        links = json.loads(own.net.lab.run(short, "ip", "-j", "link").stdout)
        assert {link["ifname"] for link in links} <= ({"lo"} if short == "a0" else {"lo", "eth0"})
    own.net.start(own.node, env=own.errors.env)
    own.net.check()


def test_offload_that_is_refused_at_start_is_not_used(own: Shaky) -> None:
    """TUNSETOFFLOAD fails for the richest set: the next poorer one is taken."""
    own.errors.order("TUNSETOFFLOAD", errno.EINVAL, every=2, times=1)
    own.net.start(own.node, env=own.errors.env)
    assert own.errors.hits("TUNSETOFFLOAD") == 1
    offload = offload_of(own.node)
    assert (offload["csum"], offload["tso"], offload["uso"]) == (True, True, False)
    own.net.check()
