"""What every bed has: two nodes on one wire, a pod on each, the servers that rows talk to.

    pod a -- node1 ==== eth0, veth, MTU 1500 ==== node2 -- pod b
    pod c --  |

Pods have an MTU of 1450 on every bed, so that the same segments cross each of them. Everything
stands in namespaces of the bed's own ``Lab``, which also ends what it started, by pid.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from fwd.control.lab import Lab, LabError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "BULK_PORT",
    "LAST_CPU",
    "LOAD_PORT",
    "POD_MTU",
    "PREFIX",
    "RR_PINNED_PORT",
    "RR_PORT",
    "TUN",
    "VIP",
    "Bed",
    "Job",
    "Pair",
    "not_installed",
]

PREFIX = "fwd-bench"
"""Start of the state folders' names under /run."""
UNDERLAY = {"node1": "198.18.0.1", "node2": "198.18.0.2"}
POD_NET = {"node1": "10.244.0", "node2": "10.244.2"}
ADDRESS = {"a": "10.244.0.10", "c": "10.244.0.11", "b": "10.244.2.10"}
VIP = "10.96.0.10"
POD_MTU = 1450
BULK_PORT, LOAD_PORT, RR_PORT, RR_PINNED_PORT, WEB_PORT = 5201, 5202, 11111, 11112, 80
LAST_CPU = (os.cpu_count() or 1) - 1
TUN = "/dev/net/tun"
START_TIMEOUT_S = 20.0

_CLIENT_PORTS = "echo 1024 65000 >/proc/sys/net/ipv4/ip_local_port_range"
"""Enough for a connection a request; the default's 28,000 are used up within seconds."""
_NGINX = """\
daemon off; master_process off; pid {dir}/nginx-{pod}.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
    uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
    server {{ listen {port} backlog=4096; location / {{ return 200 "fwd\\n"; }} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Who talks to whom: short names of the pods' namespaces and the server's address."""

    client: str
    server: str
    address: str


class Job:
    """A command that runs beside others."""

    def __init__(self, lab: Lab, log: str, child: subprocess.Popen[bytes]) -> None:
        """``log``: name of the file in the lab's folder that takes its output."""
        self._lab, self._log, self._child = lab, log, child

    def result(self, timeout_s: float) -> str:
        """Wait for its end; what it printed.

        Raises:
            LabError: it was not done in time, and has been ended.
        """
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"`{self._child.args!r}` took over {timeout_s:.0f} s") from error
        finally:
            self._lab.end([self._child.pid])
        path = self._lab.directory / self._log
        text = path.read_text(encoding="utf-8", errors="replace")
        path.unlink()
        return text


class Bed(ABC):
    """One network under test; use as a context manager."""

    name: ClassVar[str]
    title: ClassVar[str]
    commands: ClassVar[tuple[str, ...]] = ("ip", "ping")
    """Programs without which it cannot be built."""
    files: ClassVar[tuple[str, ...]] = ()
    """Paths, likewise."""
    services: ClassVar[bool] = False
    """Whether ``service`` works."""
    pairs: ClassVar[dict[str, Pair]] = {"remote": Pair("a", "b", ADDRESS["b"])}
    """Pairs of pods it offers: ``remote``, and where it can ``local`` on one node."""

    def __init__(self) -> None:
        """Nothing is made before the bed is entered."""
        self.lab = Lab(PREFIX)
        self._servers: list[int] = []
        self._jobs = 0

    @classmethod
    def missing(cls) -> str | None:
        """Why this machine cannot have the bed; None when it can."""
        if os.geteuid() != 0:
            return "needs root for network namespaces"
        absent = [name for name in cls.files if not Path(name).exists()]
        there = f"not there: {', '.join(absent)}" if absent else None
        return not_installed(cls.commands) or there

    @abstractmethod
    def build(self) -> None:
        """Make nodes, pods and whatever carries frames between them."""

    @contextmanager
    def service(self) -> Iterator[str]:
        """Address of a service whose backend is pod b, while the block runs.

        Raises:
            LabError: the bed has no services.
        """
        if not self.services:
            raise LabError(f"{self.name} has no services")
        yield VIP

    def __enter__(self) -> Self:
        """Build, start the servers, wait until pods reach each other.

        Raises:
            LabError: it did not come up; nothing of it is left.
        """
        self.lab.__enter__()
        try:
            self.build()
            for pod in {pair.client for pair in self.pairs.values()}:
                self.lab.run(pod, "sh", "-c", _CLIENT_PORTS)
            for pair in self.pairs.values():
                self._wait_reachable(pair)
            self.serve()
        except BaseException:
            self.lab.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        """Take everything down."""
        self.lab.close()

    # ---- what builds share ----

    def nodes(self, *names: str) -> None:
        """Make node namespaces; two of them are joined by the underlay's veth."""
        for name in names:
            self.lab.namespace(name)
        if len(names) == 2:
            self.lab.wire([(name, f"{UNDERLAY[name]}/24") for name in names])

    def routed_pod(self, node: str, pod: str) -> None:
        """A pod behind a veth whose node end is its gateway."""
        self.lab.namespace(pod)
        gateway, ifname = f"{POD_NET[node]}.1", f"pod-{pod}"
        ends = [(node, f"{gateway}/24"), (pod, f"{ADDRESS[pod]}/24")]
        self.lab.wire(ends, POD_MTU, ifname)
        self.lab.ip("-n", self.lab.name(pod), "route", "add", "default", "via", gateway)
        self.forward(node)

    def forward(self, node: str) -> None:
        """Let a node's kernel route."""
        self.lab.run(node, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")

    def _wait_reachable(self, pair: Pair) -> None:
        ping = ("ping", "-c", "1", "-W", "1", pair.address)
        self.lab.wait_for(
            f"{self.name}: {pair.address} to answer a ping from pod {pair.client}",
            lambda: self.lab.run(pair.client, *ping, check=False).returncode == 0,
            START_TIMEOUT_S,
        )

    # ---- what rows start ----

    def serve(self) -> None:
        """Start the servers of every row, those that are installed, or start them again."""
        self.lab.end(self._servers)
        self._servers = []
        for pod in sorted({pair.server for pair in self.pairs.values()}):
            self._serve(pod)

    def _serve(self, pod: str) -> None:
        lab, wanted = self.lab, set()
        commands = [["iperf3", "-s", "-p", str(port)] for port in (BULK_PORT, LOAD_PORT)]
        ping_pong = ["sockperf", "server", "--tcp", "-i", ADDRESS[pod], "-p"]
        commands.append([*ping_pong, str(RR_PORT)])
        commands.append(["taskset", "-c", str(LAST_CPU), *ping_pong, str(RR_PINNED_PORT)])
        config = lab.directory / f"nginx-{pod}.conf"
        config.write_text(_NGINX.format(dir=lab.directory, port=WEB_PORT, pod=pod))
        commands.append(["nginx", "-c", str(config), "-e", "stderr"])
        ports = (BULK_PORT, LOAD_PORT, RR_PORT, RR_PINNED_PORT, WEB_PORT)
        for port, command in zip(ports, commands, strict=True):
            name = "sockperf" if "sockperf" in command else command[0]
            if shutil.which(name, path=_path()) is not None:
                child = lab.spawn(pod, *command, log=f"{name}-{pod}.log")
                self._servers.append(child.pid)
                wanted.add(port)
        lab.wait_for(f"the servers in pod {pod}", lambda: wanted <= self._bound(pod, "tcp", "0A"))

    def start(self, pod: str, *command: str) -> Job:
        """Run a command beside what comes next; its output is ``Job.result``."""
        self._jobs += 1
        name = f"job-{self._jobs}.log"
        return Job(self.lab, name, self.lab.spawn(pod, *command, log=name))

    def wait_udp(self, pod: str, port: int) -> None:
        """Wait until somebody in a pod receives on a UDP port."""
        self.lab.wait_for(f"UDP port {port} in pod {pod}",
                          lambda: port in self._bound(pod, "udp", "07"))  # fmt: skip

    def _bound(self, pod: str, proto: str, state: str) -> set[int]:
        """Ports of a pod's sockets in a state, as /proc/net numbers it."""
        table = self.lab.run(pod, "cat", f"/proc/net/{proto}", f"/proc/net/{proto}6").stdout
        rows = [line.split() for line in table.splitlines()]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3:4] == [state]}


def not_installed(commands: Sequence[str]) -> str | None:
    """Name the programs that are not there; None when all are."""
    absent = [name for name in commands if shutil.which(name, path=_path()) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def _path() -> str:
    """PATH with the folders of system programs, which not every root shell has."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
