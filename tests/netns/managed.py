"""A daemon whose manager keeps its descriptors (benchmarks/manager.py), beside a plain peer."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.manager import Manager
from benchmarks.restart import start
from fwd.control.lab import Lab
from tests.netns.net import PREFIX, Net
from tests.netns.worlds import pod, two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwd.control.topology import LabNode

__all__ = ["Managed", "managed_node"]


@dataclass
class Managed:
    """Two nodes of which node1's daemon is the manager's."""

    net: Net
    node: LabNode
    manager: Manager
    data: dict[str, Any]
    """The node file of node1."""

    def start(self) -> None:
        """Start the daemon and wait for its API."""
        start(self.net, self.manager, self.node)

    def again(self, *, kill: bool = False) -> None:
        """End the daemon and start it again."""
        if kill:
            self.manager.kill()
        else:
            assert self.manager.end() == 0
        self.start()

    def link(self, short: str = "a0") -> dict[str, Any] | None:
        """The pod's eth0 as the kernel describes it."""
        rows = json.loads(self.net.lab.run(short, "ip", "-j", "addr").stdout)
        return next((row for row in rows if row.get("ifname") == "eth0"), None)

    def connections(self) -> set[tuple[str, int]]:
        """The TCP connections that the daemon knows: address and port."""
        rows = self.net.rows(self.node, "ct")
        return {(row["dst_ip"], row["src_port"]) for row in rows}

    def said(self, text: str) -> bool:
        """Whether the daemon's log has a text."""
        return text in self.manager.log.read_text()

    def stored(self, kind: str) -> int:
        """The stored descriptor of a kind."""
        return next(fd for name, fd in self.manager.kept if name.split("-")[0] == kind)

    def replace(self, kind: str, fd: int) -> None:
        """Put another descriptor in the place of a stored one."""
        for position, (name, old) in enumerate(self.manager.kept):
            if name.split("-")[0] == kind:
                os.dup2(fd, old, inheritable=False)
                self.manager.kept[position] = (name, old)


@contextlib.contextmanager
def managed_node() -> Iterator[Managed]:
    """Two pods on node1, one on node2; packets flow."""
    with Lab(PREFIX) as lab:
        net = Net(lab)
        files = two_nodes([pod("node1", 0), pod("node1", 1)], [pod("node2", 0)])
        node, peer = (net.add_node(data) for data in files)
        net.wire(node, peer)
        net.start(peer)
        with Manager(lab.directory, "node1") as manager:
            one = Managed(net, node, manager, files[0])
            one.start()
            assert net.reaches("a0", "10.244.2.10")
            yield one
        assert net.complaints(node) == []
