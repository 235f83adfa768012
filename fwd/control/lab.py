"""A lab: namespaces, veths and processes of one run, by iproute2, taken down without a trace.

``fwd demo`` and the tests in tests/netns build their nodes and pods with it. Everything is written
to the lab's state file *before* it is made, so that a lab whose maker was killed can still be taken
down by ``Lab.load(...).close()``, and nothing else is ever touched: a process is ended by its pid,
and only while its start time is the recorded one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Lab", "LabError"]

STATE_ROOT = Path("/run")
STATE_FILE = "lab.json"
TERM_GRACE_S = 8.0
"""How long a process may take to end after SIGTERM before it is killed."""


class LabError(Exception):
    """A step of the lab failed; the text names the command and what it said."""


def _start_time(pid: int) -> str | None:
    """Start time of a live process in clock ticks, None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]


class Lab:
    """One run's namespaces and processes; use as a context manager, or ``close()`` it."""

    def __init__(self, prefix: str = "fwd-demo", run_id: str | None = None) -> None:
        """Take a fresh run id; ``prefix`` starts the state folder's name."""
        self.run_id = run_id or secrets.token_hex(3)
        self.directory = STATE_ROOT / f"{prefix}-{self.run_id}"
        self.namespaces: list[str] = []
        self._processes: dict[int, str] = {}
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._owner: tuple[int, str | None] = (os.getpid(), _start_time(os.getpid()))

    @classmethod
    def load(cls, directory: Path) -> Lab:
        """The lab another process left in ``directory``.

        Raises:
            LabError: the folder holds no readable state file.
        """
        try:
            state = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
            prefix, run_id = directory.name.rsplit("-", 1)
            lab = cls(prefix, run_id)
            lab.namespaces = [str(name) for name in state["namespaces"]]
            lab._processes = {int(pid): str(at) for pid, at in state["processes"].items()}
            lab._owner = (int(state["owner"][0]), str(state["owner"][1]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            text = f"reading the lab in {directory}: {error!r}; remove the folder by hand"
            raise LabError(text) from error
        lab.directory = directory
        return lab

    @staticmethod
    def left(prefix: str = "fwd-demo") -> list[Path]:
        """Folders of labs that are up or were left, oldest first."""
        found = [path.parent for path in STATE_ROOT.glob(f"{prefix}-*/{STATE_FILE}")]
        return sorted(found, key=lambda path: path.stat().st_mtime)

    def __enter__(self) -> Self:
        """Make the state folder."""
        self.directory.mkdir(mode=0o700)
        self._save()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Take everything down."""
        self.close()

    @property
    def in_use(self) -> bool:
        """Whether the process that made the lab still runs, and will take it down itself."""
        pid, start_time = self._owner
        return start_time is not None and _start_time(pid) == start_time

    def _save(self) -> None:
        state = {
            "namespaces": self.namespaces,
            "processes": self._processes,
            "owner": self._owner,
        }
        staged = self.directory / f".{STATE_FILE}"
        staged.write_text(json.dumps(state), encoding="utf-8")
        staged.replace(self.directory / STATE_FILE)

    # ---- namespaces and links ----

    def name(self, short: str) -> str:
        """The full name of the lab's namespace ``short``."""
        return f"fwd-{self.run_id}-{short}"

    def namespace(self, short: str) -> str:
        """Make a namespace with its loopback up; returns its full name."""
        full = self.name(short)
        self.namespaces.append(full)
        self._save()
        self.ip("netns", "add", full)
        self.ip("-n", full, "link", "set", "lo", "up")
        return full

    def drop_namespace(self, short: str) -> None:
        """Delete a namespace before its time, as a pod that goes."""
        self.ip("netns", "del", self.name(short))
        self.namespaces.remove(self.name(short))
        self._save()

    def wire(self, ends: Sequence[tuple[str, str]], mtu: int = 1500, ifname: str = "eth0") -> None:
        """Join two namespaces by a veth; ``ends`` = (short name, address with prefix length)."""
        (left, _), (right, _) = ends
        self.ip(
            "link", "add", ifname, "netns", self.name(left), "mtu", str(mtu),
            "type", "veth", "peer", "name", ifname, "netns", self.name(right), "mtu", str(mtu),
        )  # fmt: skip
        for short, address in ends:
            self.ip("-n", self.name(short), "addr", "add", address, "dev", ifname)
            self.ip("-n", self.name(short), "link", "set", ifname, "up")

    def ip(self, *arguments: str) -> str:
        """Run iproute2's ``ip``; returns what it printed."""
        return self.run(None, "ip", *arguments).stdout

    # ---- processes ----

    def argv(self, short: str | None, command: Sequence[str]) -> list[str]:
        """``command`` as it is run inside the namespace ``short`` (None: the caller's)."""
        inside = ["ip", "netns", "exec", self.name(short)] if short else []
        return [*inside, *command]

    def run(
        self, short: str | None, *command: str, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end inside ``short``.

        Raises:
            LabError: it failed (with ``check``) or took longer than ``timeout_s``.
        """
        argv = self.argv(short, command)
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LabError(f"running `{' '.join(argv)}`: {error}") from error
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise LabError(f"`{' '.join(argv)}` exited {done.returncode}: {said}")
        return done

    def spawn(
        self, short: str, *command: str, log: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process inside ``short``; its output goes to ``log`` in the lab's folder."""
        with (self.directory / log).open("ab") as output:
            child = subprocess.Popen(
                self.argv(short, command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,  # Ctrl-C is for us: we end them in order
            )
        self._children[child.pid] = child
        self._processes[child.pid] = _start_time(child.pid) or ""
        self._save()
        return child

    def end(self, pids: Sequence[int], grace_s: float = TERM_GRACE_S) -> list[int]:
        """SIGTERM, then SIGKILL after ``grace_s``; returns the pids that had to be killed."""
        ours = [pid for pid in pids if self._alive(pid)]
        for pid in ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while any(self._alive(pid) for pid in ours) and time.monotonic() < deadline:
            time.sleep(0.02)
        killed = [pid for pid in ours if self._alive(pid)]
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            if pid in self._children:
                self._children.pop(pid).wait()
            self._processes.pop(pid, None)
        self._save()
        return killed

    def _alive(self, pid: int) -> bool:
        if pid in self._children:
            return self._children[pid].poll() is None
        recorded = self._processes.get(pid)
        return recorded is not None and _start_time(pid) == recorded

    def log(self, name: str, lines: int = 20) -> str:
        """The last lines of a log in the lab's folder, for error texts."""
        path = self.directory / name
        if not path.exists():
            return ""
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])

    @staticmethod
    def wait_for(what: str, ready: Callable[[], Any], timeout_s: float = 20) -> None:
        """Poll ``ready`` until it is true.

        Raises:
            LabError: it was not within ``timeout_s``; names ``what``.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                raise LabError(f"waited {timeout_s:.0f} s for {what}")
            time.sleep(0.05)

    def close(self) -> list[str]:
        """End the processes, delete the namespaces, remove the folder; returns what was removed.

        May be called twice, and goes on past what is already gone.
        """
        if not self.directory.exists():
            return []
        removed = [f"process {pid}" for pid in self._processes if self._alive(pid)]
        self.end(list(self._processes))
        for full in self.namespaces:
            done = self.run(None, "ip", "netns", "del", full, check=False)
            if done.returncode == 0:
                removed.append(f"namespace {full}")
        self.namespaces = []
        shutil.rmtree(self.directory, ignore_errors=True)
        return removed
