"""Checksummed streams both ways between a0 and b0, and the daemon's own numbers."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any

from fwd.api.client import Client
from tests.netns.programs import nginx

if TYPE_CHECKING:
    from fwd.control.topology import LabNode
    from tests.netns.net import Net

__all__ = ["A0", "B0", "Downloads", "status_of"]

A0, B0 = "10.244.0.10", "10.244.2.10"


def status_of(node: LabNode) -> dict[str, Any]:
    """What ``fwd status -o json`` prints."""
    with contextlib.closing(Client(node.socket)) as client:
        answer: dict[str, Any] = client.get("/v1/status")
    return answer


class Downloads:
    """A file of random bytes in both pods; ``check`` fetches it from the other one.

    Args:
        net: its daemons run.
        size: of the file, bytes.
    """

    def __init__(self, net: Net, size: int) -> None:
        self._net = net
        data = os.urandom(size)
        self.digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        for pod in ("a0", "b0"):
            nginx(net, pod, files={"data": data})

    def check(self, max_s: float = 60) -> list[float]:
        """Both downloads are whole; returns the bytes per second of a0's and of b0's."""
        speeds = []
        for pod, server in (("a0", B0), ("b0", A0)):
            target = self._net.lab.directory / f"got-{pod}"
            done = self._net.lab.run(
                pod, "curl", "-sS", "-m", str(max_s), "-o", str(target), "-w", "%{speed_download}",
                f"http://{server}:8080/data", check=False, timeout_s=max_s + 10,
            )  # fmt: skip
            assert done.returncode == 0, f"{pod}: {done.stderr}"
            got = hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest()
            assert got == self.digest, f"{pod}: the download differs"
            speeds.append(float(done.stdout))
        return speeds
