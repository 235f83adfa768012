"""fwd: two daemons as on two hosts, with every offload and with none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.beds.bed import ADDRESS, POD_NET, TUN, UNDERLAY, VIP, WEB_PORT, Bed, Pair
from fwd.config.schema import FeaturesSection
from fwd.control.topology import LabNode, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NO_OFFLOADS", "Fwd", "FwdPlain", "node_files"]

NO_OFFLOADS = dict.fromkeys(("csum", "tso", "uso", "udp_segment", "udp_gro", "merge"), False)
_PODS = {"node1": ("a", "c"), "node2": ("b",)}
_FIRST_ID = {"node1": 1000, "node2": 2000}


def node_files(
    pods: Mapping[str, tuple[str, ...]], addresses: Mapping[str, str], sections: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Node files of node1 and node2, each knowing the other's pods; ``sections`` go into both."""
    rows = {
        node: [
            {
                "name": f"default/{pod}",
                "id": _FIRST_ID[node] + index,
                "identity": 20000 + _FIRST_ID[node] + index,
                "ip": addresses[pod],
            }
            for index, pod in enumerate(names)
        ]
        for node, names in pods.items()
    }
    files = []
    for node, other in (("node1", "node2"), ("node2", "node1")):
        remote = [
            {
                "prefix": f"{row['ip']}/32",
                "identity": row["identity"],
                "tunnel_endpoint": UNDERLAY[other],
            }
            for row in rows[other]
        ]
        own = {
            "name": node,
            "ip": UNDERLAY[node],
            "pod_cidr": f"{POD_NET[node]}.0/24",
            "router_ip": f"{POD_NET[node]}.1",
        }
        peer = {"name": other, "ip": UNDERLAY[other], "pod_cidr": f"{POD_NET[other]}.0/24"}
        files.append(
            {"node": own, "peers": [peer], "endpoints": rows[node], "ipcache": remote, **sections}
        )
    return files


class Fwd(Bed):
    """Two daemons with their defaults."""

    name = "fwd"
    title = "fwd"
    services = True
    files = (TUN,)
    pairs: ClassVar[dict[str, Pair]] = {
        "remote": Pair("a", "b", ADDRESS["b"]),
        "local": Pair("a", "c", ADDRESS["c"]),
    }
    sections: ClassVar[Mapping[str, Any]] = {}
    """Sections of both node files beside what the topology asks for."""
    environ: ClassVar[Mapping[str, str]] = {}
    """Added to the daemons' environment."""

    def __init__(
        self,
        pods: Mapping[str, tuple[str, ...]] = _PODS,
        addresses: Mapping[str, str] = ADDRESS,
        sections: Mapping[str, Any] | None = None,
    ) -> None:
        """``pods`` by node, their ``addresses``, and ``sections`` in place of the bed's own."""
        super().__init__()
        self.topology = Topology(self.lab)
        self._pods, self._addresses = pods, addresses
        self._sections = self.sections if sections is None else sections

    def build(self) -> None:
        """Write the node files and start the daemons."""
        backend = {"ip": ADDRESS["b"], "port": WEB_PORT}
        service = {"name": "web", "frontend": VIP, "port": WEB_PORT, "backends": [backend]}
        files = node_files(self._pods, self._addresses, self._sections)
        files[0]["services"] = [service]
        near, far = (self.topology.add_node(data) for data in files)
        self.topology.wire(near, far)
        for node in (near, far):
            self.topology.start(node, self.environ)

    def node(self, name: str) -> LabNode:
        """Give a node of the running bed."""
        return self.topology.nodes[name]

    def daemon_pid(self, name: str) -> int:
        """Process id of a node's daemon: ``ip netns exec`` has become it."""
        daemon = self.node(name).daemon
        return daemon.pid if daemon is not None else 0


class FwdPlain(Fwd):
    """The same daemons without any offload: one packet, one system call."""

    name = "fwd-plain"
    title = "fwd, offloads off"
    sections: ClassVar[Mapping[str, Any]] = {"features": {"offload": NO_OFFLOADS}}

    @classmethod
    def missing(cls) -> str | None:
        """Say so when this version has no such switches, too."""
        if "offload" not in FeaturesSection.model_fields:
            return "this version of fwd has no features.offload"
        return super().missing()
