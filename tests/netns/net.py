"""A topology with what the end-to-end tests ask of it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from fwd.api.client import Client
from fwd.control.topology import LabNode, Topology

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from fwd.model.enums import Drop

__all__ = ["PREFIX", "Net"]

PREFIX = "fwd-test"
RECEIVED, SENT, TO_STACK, PUNTED, FIRST_DROP = 101, 103, 102, 100, 130
"""Metrics that must add up (fwd/observe/metrics.py)."""


class Net(Topology):
    """A topology with what tests ask of it."""

    def rows(self, node: LabNode, table: str) -> list[dict[str, Any]]:
        """All rows of a resource of a node's API, such as ``endpoint`` or ``metrics``."""
        with contextlib.closing(Client(node.socket)) as client:
            return list(client.rows(f"/v1/{table}"))

    def drops(self, node: LabNode, reason: Drop) -> int:
        """How many packets a node has dropped for ``reason``."""
        rows = self.rows(node, "metrics")
        return sum(row["packets"] for row in rows if row["code"] == reason)

    def balance(self, node: LabNode) -> dict[str, int]:
        """What a node's packets became, by outcome; ``missing`` is what no counter knows of."""
        sums = dict.fromkeys(("received", "sent", "to_stack", "punted", "dropped"), 0)
        names = {RECEIVED: "received", SENT: "sent", TO_STACK: "to_stack", PUNTED: "punted"}
        for row in self.rows(node, "metrics"):
            name = "dropped" if row["code"] >= FIRST_DROP else names.get(row["code"])
            if name is not None:
                sums[name] += row["packets"]
        return sums | {"missing": 2 * sums["received"] - sum(sums.values())}

    def check(self) -> None:
        """What holds after every test: each packet has one outcome, no daemon complains."""
        for node in self.nodes.values():
            if node.daemon is not None and node.daemon.poll() is None:
                balance = self.balance(node)
                assert balance["missing"] == 0, (node.name, balance)
            assert self.complaints(node) == []

    def manifest(self, name: str, objects: Iterable[Mapping[str, Any]]) -> Path:
        """Write Kubernetes objects to ``name`` in the lab's folder."""
        path = self.lab.directory / name
        with path.open("w", encoding="utf-8") as target:
            YAML(typ="safe").dump_all(objects, target)
        return path

    def trace(self, node: LabNode, flow: str) -> dict[str, Any]:
        """What ``fwd trace FLOW -o json`` prints."""
        with contextlib.closing(Client(node.socket)) as client:
            answer: dict[str, Any] = client.post("/v1/trace", {"flow": flow})
        return answer

    def watch(self, node: LabNode, *types: str) -> Path:
        """Follow a node with ``fwd monitor``; returns the file its lines go to."""
        log = f"monitor-{node.name}.log"
        argv = (sys.executable, "-m", "fwd", "--socket", str(node.socket), "monitor")
        options = [word for one in types for word in ("-t", one)]
        self.lab.spawn(None, *argv, *options, log=log)
        self.lab.wait_for("the monitor", lambda: self._listeners(node) > 0)
        return self.lab.directory / log

    @staticmethod
    def _listeners(node: LabNode) -> int:
        with contextlib.closing(Client(node.socket)) as client:
            return int(client.get("/v1/status")["monitor"]["listeners"])

    def complaints(self, node: LabNode) -> list[str]:
        """What a daemon's log holds that no daemon should write."""
        bad = ("Traceback", "Sanitizer", "runtime error", "never retrieved", "never awaited")
        lines = self.lab.log(node.log, lines=10_000).splitlines()
        return [line for line in lines if any(word in line for word in bad)]

    def ping(self, short: str, address: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Ping once from the pod ``short``, waiting two seconds at most."""
        return self.lab.run(short, "ping", "-c", "1", "-W", "2", *options, address, check=False)

    def reaches(self, short: str, address: str) -> bool:
        """Whether a ping is answered; the first packet of a pod may be lost to ARP."""
        return self.lab.run(
            short, "ping", "-c", "3", "-i", "0.2", "-W", "2", "-w", "4", address, check=False
        ).returncode == 0  # fmt: skip
