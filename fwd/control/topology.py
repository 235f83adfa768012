"""Nodes and pods of a lab: node files in, running daemons out.

Each node file becomes a namespace with the node's underlay address on ``eth0`` and one namespace an
endpoint; the file is rewritten only in what a lab must decide (the API socket, the pods'
namespaces). The daemons are ordinary ``fwd run`` processes, so what works here works on a host.
"""

from __future__ import annotations

import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from fwd.config.load import load_node_file
from fwd.control.lab import LabError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from fwd.control.lab import Lab

__all__ = ["LabNode", "Topology", "read_node_file"]

START_TIMEOUT_S = 30.0


def read_node_file(path: Path) -> dict[str, Any]:
    """A node file as plain data, to be changed before a lab uses it.

    Raises:
        ConfigError: the daemon would not take it either.
    """
    load_node_file(path)
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return loaded


@dataclass(slots=True)
class LabNode:
    """One node of a lab."""

    name: str
    ip: str
    config: Path
    """The node file its daemon reads."""
    socket: Path
    pods: dict[str, str] = field(default_factory=dict)
    """Endpoint name to the short name of its namespace."""
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Name of its daemon's log in the lab's folder."""
        return f"{self.name}.log"


class Topology:
    """Two nodes on one wire, built from their node files."""

    def __init__(self, lab: Lab) -> None:
        """Nodes are added to ``lab`` one by one."""
        self.lab = lab
        self.nodes: dict[str, LabNode] = {}

    def add_node(self, data: Mapping[str, Any]) -> LabNode:
        """Make a node's namespaces and write its node file; nothing runs yet."""
        name = str(data["node"]["name"])
        node = LabNode(
            name=name,
            ip=str(data["node"]["ip"]),
            config=self.lab.directory / f"{name}.yaml",
            socket=self.lab.directory / f"{name}.sock",
        )
        self.nodes[name] = node
        self.lab.namespace(name)
        self.write(node, data)
        return node

    def write(self, node: LabNode, data: Mapping[str, Any]) -> None:
        """(Re)write a node's file, making the namespaces of endpoints that are new in it."""
        endpoints = [dict(row) for row in data.get("endpoints") or ()]
        for row in endpoints:
            short = str(row["name"]).rsplit("/", 1)[-1]
            if row["name"] not in node.pods:
                node.pods[row["name"]] = short
                self.lab.namespace(short)
            row["netns"] = self.lab.name(short)
        whole = {**data, "api": {"socket": str(node.socket)}, "endpoints": endpoints}
        with node.config.open("w", encoding="utf-8") as target:
            YAML(typ="safe", pure=True).dump(whole, target)

    def wire(self, left: LabNode, right: LabNode, mtu: int = 1500) -> None:
        """Join two nodes by a veth, ``eth0`` on both sides."""
        self.lab.wire([(node.name, f"{node.ip}/24") for node in (left, right)], mtu)

    def start(self, node: LabNode, env: Mapping[str, str] | None = None) -> None:
        """Start a node's daemon, with ``env`` added, and wait until its API answers.

        Raises:
            LabError: it ended or did not come up; the text ends with its log.
        """
        node.daemon = self.lab.spawn(
            node.name, sys.executable, "-m", "fwd", "run", "--config", str(node.config),
            log=node.log, env=env,
        )  # fmt: skip
        try:
            self.lab.wait_for(f"the daemon of {node.name}", lambda: self._up(node), START_TIMEOUT_S)
        except LabError as error:
            raise LabError(f"{error}; its log ends:\n{self.lab.log(node.log)}") from error

    @staticmethod
    def _up(node: LabNode) -> bool:
        if node.daemon is not None and node.daemon.poll() is not None:
            raise LabError(f"the daemon of {node.name} exited {node.daemon.returncode}")
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(node.socket)) == 0

    def fwd(self, node: LabNode, *command: str) -> str:
        """What ``fwd <command>`` prints, asked of a node's daemon.

        Raises:
            LabError: the command failed.
        """
        argv = [sys.executable, "-m", "fwd", "--socket", str(node.socket), *command]
        return self.lab.run(None, *argv).stdout

    def reload(self, node: LabNode) -> None:
        """SIGHUP a node's daemon; what it made of it stands in its log and API."""
        if node.daemon is not None:
            node.daemon.send_signal(signal.SIGHUP)

    def stop(self, node: LabNode) -> bool:
        """SIGTERM a node's daemon; True when it ended in time and by itself."""
        if node.daemon is None:
            return True
        killed = self.lab.end([node.daemon.pid])
        node.daemon = None
        return not killed
