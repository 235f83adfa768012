"""``fwd demo``: the seed's walk on real traffic.

Two node namespaces on one wire, one daemon a node, curl in a pod on node1, nginx in a pod on node2.
Prints what the first SYN met on its way, stage by stage, as both daemons saw it, then the two table
dumps the walk leans on, and HTTP's status. Everything it makes carries a run id and is taken down
again, also on Ctrl-C; ``--keep`` leaves it up for ``fwd demo down``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fwd.api.client import ApiError, Client
from fwd.config.load import ConfigError
from fwd.control.lab import Lab, LabError
from fwd.control.topology import LabNode, Topology, read_node_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["app"]

CLIENT_POD, SERVER_POD = "curl", "nginx"
PAGE = "fwd demo: nginx in a TAP pod on node2 answers\n"
WALK_TIMEOUT_S = 5.0
TABLES = ("cilium_ipcache", "cilium_lxc")
"""What the walk leans on: where node1 finds the tunnel, where node2 finds the pod."""
ROWS = {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
"""Rows of docs/datapath.md a first SYN must pass; row 1 is for services."""

app = typer.Typer(
    help="The seed's walk on real traffic: curl in a pod on node1, nginx on node2.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass
class Walked:
    """One packet's way over one node."""

    lines: list[str]
    rows: set[int]


@dataclass
class Monitor:
    """The ``step`` records of one daemon, collected by a thread while the demo runs."""

    node: LabNode
    records: list[dict[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        """Begin to collect; ends with the process or the daemon."""
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        with contextlib.suppress(ApiError, OSError):
            for record in Client(self.node.socket).stream("/v1/monitor", type="step"):
                self.records.append(record)

    def listening(self) -> bool:
        """Whether the daemon has this listener, so that no packet is missed."""
        with contextlib.closing(Client(self.node.socket)) as client:
            return bool(client.get("/v1/status")["monitor"]["listeners"])

    def wait_tcp_walk(self) -> Walked:
        """The first TCP packet on this node, to its end.

        Raises:
            DemoError: none was seen in time.
        """
        deadline = time.monotonic() + WALK_TIMEOUT_S
        while time.monotonic() < deadline:
            steps = [record for record in list(self.records) if record["type"] == "step"]
            first = next((one for one in steps if "cilium_ct4_global" in one["walk"]), None)
            if first is not None and steps[-1]["time_ns"] > first["time_ns"]:
                return self._walk(steps, first)
            time.sleep(0.05)
        raise DemoError(f"the daemon of {self.node.name} told of no TCP packet")

    @staticmethod
    def _walk(steps: list[dict[str, Any]], of: dict[str, Any]) -> Walked:
        """Order the packet's lines; a stage that runs again belongs to the row that runs it."""
        mine = [
            one for one in steps if (one["mark"], one["time_ns"]) == (of["mark"], of["time_ns"])
        ]
        lines, row = [], 0
        for one in mine:
            row = max(row, int(one["row"]))
            lines.append(f"{row:>2}{str(one['walk'])[2:]}")
        return Walked(lines, {int(one["row"]) for one in mine})


@app.callback(invoke_without_command=True)
def demo(
    context: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it up to look around.")] = False,
    config_dir: Annotated[
        Path | None, typer.Option(help="Folder with node1.yaml and node2.yaml.")
    ] = None,
) -> None:
    """Run the demo."""
    if context.invoked_subcommand is not None:
        return
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        status = _run(keep=keep, configs=config_dir or _default_configs())
    except (DemoError, LabError, ConfigError, ApiError) as error:
        print(f"fwd demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("fwd demo: interrupted, everything is taken down", file=sys.stderr)
        raise typer.Exit(130) from None
    raise typer.Exit(0 if status == "200" else 1)


@app.command()
def down() -> None:
    """Remove what `fwd demo --keep` or a killed demo left; nothing else."""
    try:
        labs = [Lab.load(directory) for directory in Lab.left()]
    except LabError as error:
        print(f"fwd demo down: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    for lab in labs:
        if lab.in_use:
            print(f"{lab.directory.name}: left alone, its demo is still running")
        else:
            removed = lab.close()
            print(f"{lab.directory.name}: removed {', '.join(removed) or 'an empty folder'}")
    if not labs:
        print("no demo is up")


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _default_configs() -> Path:
    folder = Path(__file__).resolve().parents[2] / "configs"
    if not (folder / "node1.yaml").exists():
        raise DemoError(f"no node1.yaml in {folder}: name the folder with --config-dir")
    return folder


def _preflight() -> Iterator[tuple[str, str, str]]:
    """(what, state or empty when missing, fix) of everything the demo leans on."""
    yield "root", "yes" if os.geteuid() == 0 else "", "run: sudo make demo"
    tun = Path("/dev/net/tun")
    yield "/dev/net/tun", "yes" if tun.is_char_device() else "", "run: modprobe tun"
    for name, package in (("ip", "iproute2"), ("curl", "curl")):
        yield name, shutil.which(name) or "", f"run: apt-get install {package}"
    server = shutil.which("nginx") or f"{sys.executable} -m http.server (nginx is not installed)"
    yield "web server", server, ""
    yield "kernel", platform.release(), ""


def _check_first() -> None:
    rows = list(_preflight())
    for what, state, fix in rows:
        print(f"[{'ok' if state else 'missing'}]".ljust(10), what.ljust(14), state or fix)
    if not all(state for _, state, _ in rows):
        raise DemoError("mend what is missing above; nothing was made")


def _run(*, keep: bool, configs: Path) -> str:
    """Set up, fetch, show, take down; returns HTTP's status."""
    _check_first()
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab())
        stack.callback(_unhurried)
        print(f"\nnamespaces {lab.name('*')}, files in {lab.directory}")
        topology = Topology(lab)
        node1, node2 = (
            topology.add_node(read_node_file(configs / f"{name}.yaml"))
            for name in ("node1", "node2")
        )
        topology.wire(node1, node2)
        for node in (node1, node2):
            topology.start(node)
        url = f"http://{_pod_address(lab)}/"
        _serve(lab, url)
        monitors = [Monitor(node) for node in (node1, node2)]
        status = _fetch(lab, url, monitors)
        _show(topology, url, status, monitors)
        if keep:
            _advise(topology, url)
            stack.pop_all()
    return status


def _unhurried() -> None:
    """From here on a second Ctrl-C must not stop the cleaning."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _pod_address(lab: Lab) -> str:
    """The server pod's IPv4 address as its namespace has it."""
    listing = lab.ip("-n", lab.name(SERVER_POD), "-4", "-br", "addr", "show", "dev", "eth0").split()
    if len(listing) < 3:
        raise DemoError(f"the pod {SERVER_POD} has no address on eth0: {lab.log('node2.log')}")
    return listing[2].split("/")[0]


def _serve(lab: Lab, url: str) -> None:
    """Start a web server in the second pod and wait until it answers there."""
    web = lab.directory / "web"
    web.mkdir()
    web.chmod(0o755)
    lab.directory.chmod(0o711)  # nginx's workers are not root
    (web / "index.html").write_text(PAGE, encoding="utf-8")
    if shutil.which("nginx"):
        conf = lab.directory / "nginx.conf"
        conf.write_text(
            f"daemon off; pid {lab.directory}/nginx.pid; error_log stderr; worker_processes 1;\n"
            "events {}\n"
            f"http {{ access_log off; server {{ listen 80; root {web}; }} }}\n",
            encoding="utf-8",
        )
        command = ["nginx", "-e", "stderr", "-c", str(conf)]
    else:
        command = [sys.executable, "-m", "http.server", "--directory", str(web), "80"]
    lab.spawn(SERVER_POD, *command, log="web.log")
    lab.wait_for(
        "the web server",
        lambda: lab.run(SERVER_POD, "curl", "-sf", url, check=False).returncode == 0,
    )


def _fetch(lab: Lab, url: str, monitors: list[Monitor]) -> str:
    """Curl from the first pod, with both daemons' steps recorded; returns HTTP's status."""
    for monitor in monitors:
        monitor.start()
    lab.wait_for("the monitor streams", lambda: all(monitor.listening() for monitor in monitors))
    done = lab.run(
        CLIENT_POD, "curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", url,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
    return done.stdout.strip()


def _show(topology: Topology, url: str, status: str, monitors: list[Monitor]) -> None:
    """Print the walk, the two tables and the status."""
    print(f"\n$ curl {url}    in the pod {CLIENT_POD}; the first SYN's way:\n")
    seen: set[int] = set()
    for monitor in monitors:
        walk, node = monitor.wait_tcp_walk(), monitor.node
        print(f"{node.name} ({node.ip})")
        print("\n".join(f"  {line}" for line in walk.lines))
        seen |= walk.rows
        if monitor is monitors[0]:
            ends = " -> ".join(each.node.ip for each in monitors)
            print(f"  --  the wire: UDP 8472, {ends}")
    missing = sorted(ROWS - seen)
    if missing:
        raise DemoError(f"rows {missing} of docs/datapath.md were not seen on the way")
    for node, table in zip(topology.nodes.values(), TABLES, strict=True):
        print(f"\n{node.name}$ fwd map get {table}")
        print(topology.fwd(node, "map", "get", table).rstrip())
    print(f"\nHTTP status {status or 'none'} from {url}")


def _advise(topology: Topology, url: str) -> None:
    """Say how to look around and how to remove it."""
    print("\nIt is up. Look around, then remove it with: fwd demo down")
    for node in topology.nodes.values():
        print(f"  fwd --socket {node.socket} status")
    print(f"  ip netns exec {topology.lab.name(CLIENT_POD)} curl {url}")
