"""A topology with what the end-to-end tests ask of it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from fwd.api.client import Client
from fwd.control.topology import LabNode, Topology

if TYPE_CHECKING:
    import subprocess

    from fwd.model.enums import Drop

__all__ = ["PREFIX", "Net"]

PREFIX = "fwd-test"


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
