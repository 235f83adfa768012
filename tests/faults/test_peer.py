"""A peer that reboots, and one whose address changes: traffic is back within a second.

a0 -- TAP -- fwd node1 ==== UDP 8472 ==== fwd node2 -- TAP -- b0
"""

from __future__ import annotations

import copy
import itertools
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fwd.model.enums import Drop
from tests.faults.downloads import A0, B0, Downloads
from tests.netns.managed import managed_node
from tests.netns.worlds import two_nodes

if TYPE_CHECKING:
    import subprocess

    from tests.netns.net import Net

pytestmark = pytest.mark.netns
BACK_S, HOLE_S = 1.0, 3.0
NEW = "192.168.56.110"


class Pings:
    """Twenty pings a second from a0 to b0."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._child: subprocess.Popen[bytes] = net.lab.spawn(
            "a0", "ping", "-D", "-i", "0.05", "-W", "1", B0, log="pings.log"
        )
        net.lab.wait_for("a ping", self.answered)

    def answered(self) -> list[float]:
        """When each answer came, in seconds of the wall clock."""
        text = (self._net.lab.directory / "pings.log").read_text()
        return [float(at) for at in re.findall(r"^\[([\d.]+)\] \d+ bytes from", text, re.MULTILINE)]

    def back_after(self, moment: float) -> float:
        """Seconds from a moment to the first answer that came later."""
        self._net.lab.wait_for("an answer", lambda: self.answered()[-1] > moment, timeout_s=10)
        return next(at for at in self.answered() if at > moment) - moment

    def hole(self) -> float:
        """The longest time without an answer, seconds; ends the pings."""
        time.sleep(0.3)
        self._net.lab.end([self._child.pid])
        return max(late - early for early, late in itertools.pairwise(self.answered()))


def test_peer_reboots(own_net: Net) -> None:
    """Killed with all it had, off the wire for a second: answers come as soon as it is up."""
    net, node2 = own_net, own_net.nodes["node2"]
    pings = Pings(net)
    assert node2.daemon is not None
    node2.daemon.send_signal(signal.SIGKILL)
    node2.daemon.wait(timeout=10)
    net.lab.run("node2", "ip", "link", "set", "eth0", "down")
    time.sleep(1)
    net.lab.run("node2", "ip", "link", "set", "eth0", "up")
    node2.socket.unlink(missing_ok=True)
    net.start(node2)
    back = pings.back_after(time.time())
    print(f"peer rebooted: answers {back:.2f} s after it was up")
    assert back <= BACK_S
    assert net.reaches("b0", A0)
    assert net.nodes["node1"].daemon is not None
    assert net.nodes["node1"].daemon.poll() is None
    pings.hole()


def test_peer_address_changes_under_traffic() -> None:
    """One side restarts with it, the other reloads: a stream is whole, no hole exceeds 3 s."""
    with managed_node() as one:
        net, peer = one.net, one.net.nodes["node2"]
        downloads = Downloads(net, 4 << 20)
        pings = Pings(net)
        stream = net.lab.spawn(
            "a0", "sh", "-c",
            f"curl -sS --limit-rate 1M http://{B0}:8080/data | md5sum | cut -c1-32",
            log="stream.log",
        )  # fmt: skip
        time.sleep(0.5)
        old = one.data["node"]["ip"]
        net.lab.run("node1", "ip", "addr", "add", f"{NEW}/24", "dev", "eth0")
        ours = copy.deepcopy(one.data)
        ours["node"]["ip"] = NEW
        theirs = two_nodes(one.data["endpoints"], [])[1]
        theirs["endpoints"] = two_nodes([], [{"name": "default/b0", "id": 2000, "identity": 26000,
                                              "ip": B0}])[1]["endpoints"]  # fmt: skip
        theirs["peers"][0]["ip"] = NEW
        for row in theirs["ipcache"]:
            row["tunnel_endpoint"] = NEW
        net.write(one.node, ours)
        net.write(peer, theirs)
        one.again()
        assert one.said(NEW)
        net.fwd(peer, "reload")
        back = pings.back_after(time.time())
        hole = pings.hole()
        print(f"peer's address changed: answers {back:.2f} s later, longest hole {hole:.2f} s")
        assert back <= BACK_S
        assert hole <= HOLE_S
        net.lab.run("node1", "ip", "addr", "del", f"{old}/24", "dev", "eth0")
        net.lab.run("node1", "ip", "addr", "replace", f"{NEW}/24", "dev", "eth0")
        stream.wait(timeout=30)
        assert net.lab.log("stream.log") == downloads.digest
        assert net.reaches("b0", A0)
        assert net.drops(peer, Drop.UNKNOWN_PEER) < 100
