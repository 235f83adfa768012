"""Daemons inside the test's process, on loopback, with pods in namespaces of their own.

fwdt-<pid>-<n>                                               fwdt-<pid>-<m>
+----------+        Agent n1             Agent n2            +----------+
| a  eth0  |- TAP - 127.0.0.1:P -- lo -- 127.0.0.2:P - TAP - |  eth0  b |
+----------+                                                 +----------+
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fwd.control.agent import Agent
from tests.netlink.namespaces import namespace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

__all__ = [
    "NodeText",
    "Pod",
    "agents",
    "exchange",
    "execute",
    "free_port",
    "ping",
    "pod",
    "silent",
    "until",
]

MTU = 1450


def free_port() -> int:
    """A UDP port nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Pod:
    """One pod of a test."""

    name: str
    number: int
    """Endpoint id, and last byte of the address."""
    netns: str
    node: int = 1
    mac: str = ""

    @property
    def ip(self) -> str:
        """Its address."""
        return f"10.0.{self.node}.{self.number}"

    @property
    def row(self) -> str:
        """Its row in the node file."""
        mac = f', mac: "{self.mac}"' if self.mac else ""
        return (
            f"{{name: {self.name}, id: {self.number}, identity: {300 + self.number}, "
            f"ip: {self.ip}, netns: {self.netns}{mac}}}"
        )


@contextlib.contextmanager
def pod(name: str, number: int, node: int = 1) -> Iterator[Pod]:
    """A pod's namespace."""
    with namespace() as netns:
        yield Pod(name, number, netns, node)


@dataclass
class NodeText:
    """One node's file, written to where its daemon reads it."""

    path: Path
    port: int
    number: int = 1
    pods: list[Pod] = field(default_factory=list)
    remote: list[Pod] = field(default_factory=list)
    extra: str = ""

    def write(self) -> None:
        """(Re)write the file."""
        other = 3 - self.number
        rows = "".join(f"\n  - {one.row}" for one in self.pods)
        ipcache = "".join(
            f"\n  - {{prefix: {one.ip}/32, identity: {300 + one.number}, "
            f"tunnel_endpoint: 127.0.0.{other}}}"
            for one in self.remote
        )
        self.path.write_text(
            f"node: {{name: n{self.number}, ip: 127.0.0.{self.number}, "
            f"pod_cidr: 10.0.{self.number}.0/24, router_ip: 10.0.{self.number}.1}}\n"
            f"tunnel: {{port: {self.port}, mtu: {MTU}}}\n"
            f"conntrack: {{capacity: {{tcp: 4096, any: 4096}}}}\n"
            f"peers:\n  - {{name: peer, ip: 127.0.0.{other}, pod_cidr: 10.0.{other}.0/24}}\n"
            f"endpoints:{rows or ' []'}\n"
            f"ipcache:{ipcache or ' []'}\n{self.extra}"
        )


@contextlib.asynccontextmanager
async def silent(_agent: Agent) -> AsyncIterator[None]:
    """Serve nobody: what stands in for the API."""
    yield


@contextlib.asynccontextmanager
async def agents(*texts: NodeText) -> AsyncIterator[list[Agent]]:
    """Write the files and run a daemon for each."""
    async with contextlib.AsyncExitStack() as stack:
        running = []
        for text in texts:
            text.write()
            agent = Agent(text.path, silent)
            await agent.start()
            stack.push_async_callback(agent.stop)
            running.append(agent)
        yield running


async def execute(netns: str, *command: str) -> tuple[int, str]:
    """Run a command in a namespace while the daemons go on: (exit code, output)."""
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", netns, *command,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    return process.returncode or 0, output.decode()


async def ping(source: Pod, target: str, *options: str) -> bool:
    """Whether two of two pings come back."""
    command = ["ping", "-c", "2", "-i", "0.05", "-W", "1", *options, target]
    return (await execute(source.netns, *command))[0] == 0


RECEIVE = """
import hashlib, socket
server = socket.create_server(("", 5001))
print("listening", flush=True)
peer, _ = server.accept()
digest, total = hashlib.sha256(), 0
while data := peer.recv(1 << 16):
    digest.update(data); total += len(data)
print(total, digest.hexdigest())
"""
SEND = """
import hashlib, random, socket, sys
data = random.Random(1).randbytes(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 5001), timeout=10) as peer:
    peer.sendall(data)
print(len(data), hashlib.sha256(data).hexdigest())
"""


async def exchange(source: Pod, target: Pod, size: int) -> bool:
    """Whether ``size`` random bytes arrive over TCP as they were sent."""
    server = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", target.netns, sys.executable, "-c", RECEIVE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        async with asyncio.timeout(20):
            assert await server.stdout.readline() == b"listening\n"
            sender = await execute(source.netns, sys.executable, "-c", SEND, target.ip, str(size))
            received = (await server.stdout.read()).decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()
    return sender == (0, received)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds, at most five seconds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the other side is the kernel
            await asyncio.sleep(0.01)
