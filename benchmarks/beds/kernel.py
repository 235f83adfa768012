"""What the kernel can do: its VXLAN device with routed pods, and veth + bridge on one node."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from benchmarks.beds.bed import ADDRESS, POD_MTU, POD_NET, UNDERLAY, VIP, WEB_PORT, Bed, Pair

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Bridge", "KernelVxlan"]

OVERLAY = {"node1": "10.99.0.1", "node2": "10.99.0.2"}
VNI, VXLAN_PORT = "42", "8472"


class KernelVxlan(Bed):
    """Pods behind routed veths, nodes joined by a VXLAN device each."""

    name = "kernel"
    title = "kernel VXLAN, routed veth pods"
    services = True

    def build(self) -> None:
        """Make two nodes, a pod each, a route to the other's pods through the tunnel."""
        self.nodes("node1", "node2")
        self.routed_pod("node1", "a")
        self.routed_pod("node2", "b")
        for node, other in (("node1", "node2"), ("node2", "node1")):
            at = ("-n", self.lab.name(node))
            self.lab.ip(
                *at, "link", "add", "vxlan0", "mtu", str(POD_MTU), "type", "vxlan", "id", VNI,
                "dstport", VXLAN_PORT, "local", UNDERLAY[node], "remote", UNDERLAY[other],
                "dev", "eth0", "nolearning",
            )  # fmt: skip
            self.lab.ip(*at, "addr", "add", f"{OVERLAY[node]}/24", "dev", "vxlan0")
            self.lab.ip(*at, "link", "set", "vxlan0", "up")
            self.lab.ip(*at, "route", "add", f"{POD_NET[other]}.0/24", "via", OVERLAY[other])

    @contextmanager
    def service(self) -> Iterator[str]:
        """DNAT in node1 by nftables, only while it is measured: other rows pay no conntrack."""
        rule = f"ip daddr {VIP} tcp dport {WEB_PORT} dnat to {ADDRESS['b']}:{WEB_PORT}"
        chain = f"chain vip {{\ntype nat hook prerouting priority dstnat;\n{rule}\n}}"
        self.lab.run("node1", "nft", f"table ip bench {{\n{chain}\n}}\n")
        try:
            yield VIP
        finally:
            self.lab.run("node1", "nft", "delete table ip bench", check=False)


class Bridge(Bed):
    """Two pods of one node on a bridge."""

    name = "bridge"
    title = "veth + bridge, one node"
    pairs: ClassVar[dict[str, Pair]] = {"local": Pair("a", "c", ADDRESS["c"])}

    def build(self) -> None:
        """Make one node, a bridge, two veths."""
        self.nodes("node1")
        at = ("-n", self.lab.name("node1"))
        self.lab.ip(*at, "link", "add", "br0", "mtu", str(POD_MTU), "type", "bridge")
        self.lab.ip(*at, "link", "set", "br0", "up")
        for pod in ("a", "c"):
            full, ifname = self.lab.namespace(pod), f"pod-{pod}"
            self.lab.ip(
                *at, "link", "add", ifname, "mtu", str(POD_MTU), "type", "veth",
                "peer", "name", "eth0", "netns", full, "mtu", str(POD_MTU),
            )  # fmt: skip
            self.lab.ip(*at, "link", "set", ifname, "master", "br0", "up")
            self.lab.ip("-n", full, "addr", "add", f"{ADDRESS[pod]}/24", "dev", "eth0")
            self.lab.ip("-n", full, "link", "set", "eth0", "up")
