"""Open vSwitch's userspace datapath: TAP pods, VXLAN by the switch itself.

Each node runs its own database and switch with their own folder, so nothing of a system-wide
Open vSwitch is touched. Needs no kernel module: ``datapath_type=netdev``. The pods' ports are TAPs
that the switch opened and that were moved to the pods afterwards, as its documentation describes;
the underlay address sits on ``br-phy``, where its tunnel code looks routes and neighbours up.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, ClassVar

from benchmarks.beds.bed import ADDRESS, POD_MTU, TUN, UNDERLAY, Bed, Pair

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Ovs"]

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_PODS = {"node1": ("a", "c"), "node2": ("b",)}
_PREFIX_LEN = 16
"""Pods of both nodes share one subnet: the switch forwards by MAC, it does not route."""


class Ovs(Bed):
    """Two switches in userspace."""

    name = "ovs"
    title = "Open vSwitch, userspace datapath, TAP pods"
    commands = ("ip", "ping", "ovs-vsctl", "ovsdb-tool", "ovsdb-server", "ovs-vswitchd")
    files = (TUN, SCHEMA)
    pairs: ClassVar[dict[str, Pair]] = {
        "remote": Pair("a", "b", ADDRESS["b"]),
        "local": Pair("a", "c", ADDRESS["c"]),
    }

    def build(self) -> None:
        """Start the switches, give each a wire bridge, an integration bridge and pods."""
        self.nodes("node1", "node2")
        for node, other in (("node1", "node2"), ("node2", "node1")):
            self._start(node)
            self._bridges(node, other)
            for pod in _PODS[node]:
                self._pod(node, pod)

    def _directory(self, node: str) -> Path:
        return self.lab.directory / f"ovs-{node}"

    def _start(self, node: str) -> None:
        directory = self._directory(node)
        directory.mkdir()
        database, remote = directory / "conf.db", f"unix:{directory / 'db.sock'}"
        self.lab.run(None, "ovsdb-tool", "create", str(database), SCHEMA)
        places = {name: str(directory) for name in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR")}
        self.lab.spawn(
            node, _program("ovsdb-server"), str(database), f"--remote=p{remote}",
            f"--unixctl={directory / 'ovsdb.ctl'}", log=f"ovsdb-{node}.log", env=places,
        )  # fmt: skip
        self.lab.wait_for(f"ovsdb of {node}", (directory / "db.sock").exists)
        self._vsctl(node, "--no-wait", "init")
        self.lab.spawn(
            node, _program("ovs-vswitchd"), remote, f"--unixctl={directory / 'switch.ctl'}",
            log=f"ovs-{node}.log", env=places,
        )  # fmt: skip

    def _vsctl(self, node: str, *arguments: str) -> None:
        remote = f"--db=unix:{self._directory(node) / 'db.sock'}"
        self.lab.run(node, "ovs-vsctl", "--timeout=15", remote, *arguments)

    def _bridges(self, node: str, other: str) -> None:
        """Take the underlay address from eth0 to br-phy, which the tunnel's packets leave by."""
        at = ("-n", self.lab.name(node))
        mac = "02:00:00:00:00:0" + node[-1]
        self._vsctl(
            node, "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type=netdev",
            f"other-config:hwaddr={mac}", "--", "add-port", "br-phy", "eth0",
        )  # fmt: skip
        self.lab.ip(*at, "addr", "flush", "dev", "eth0")
        self.lab.ip(*at, "addr", "add", f"{UNDERLAY[node]}/24", "dev", "br-phy")
        self.lab.ip(*at, "link", "set", "br-phy", "up")
        self._vsctl(
            node, "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev",
            "--", "add-port", "br-int", "vxlan0", "--", "set", "interface", "vxlan0",
            "type=vxlan", "options:key=42", "options:dst_port=8472",
            f"options:remote_ip={UNDERLAY[other]}", f"options:local_ip={UNDERLAY[node]}",
        )  # fmt: skip

    def _pod(self, node: str, pod: str) -> None:
        """Open a TAP in the switch, then move it; it keeps carrying frames by its descriptor."""
        full, ifname = self.lab.namespace(pod), f"tap-{pod}"
        self._vsctl(
            node, "add-port", "br-int", ifname, "--", "set", "interface", ifname, "type=tap"
        )
        self.lab.ip("-n", self.lab.name(node), "link", "set", ifname, "netns", full)
        at = ("-n", full)
        self.lab.ip(*at, "link", "set", ifname, "name", "eth0", "mtu", str(POD_MTU))
        self.lab.ip(*at, "addr", "add", f"{ADDRESS[pod]}/{_PREFIX_LEN}", "dev", "eth0")
        self.lab.ip(*at, "link", "set", "eth0", "up")


def _program(name: str) -> str:
    """Full path of a system program, wherever root's PATH ends."""
    return shutil.which(name) or f"/usr/sbin/{name}"
