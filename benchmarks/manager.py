"""A service manager for tests and benchmarks: it starts one daemon and keeps its descriptors.

What it does of systemd's part: ``FDSTORE``, ``FDSTOREREMOVE``, ``BARRIER`` and ``READY`` over a
notify socket, and ``LISTEN_FDS`` for the next start. A descriptor that is there already is not kept
twice, as systemd does it (service_add_fd_store, which compares with kcmp(2)).
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Manager"]

_FIRST_FD = 3
_SAFE_FD = 600
"""Kept descriptors are above all that a child gets them as."""
_SYS_KCMP = {"x86_64": 312, "aarch64": 272}[os.uname().machine]
_KCMP_FILE = 0
_LIBC = ctypes.CDLL(None, use_errno=True)


class Manager:
    """One service's manager; use as a context manager.

    Args:
        directory: for its socket and the daemon's log.
        name: of the service, and so of those files.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._path = directory / f"{name}.notify"
        self.log = directory / f"{name}.log"
        self.name = name
        self.kept: list[tuple[str, int]] = []
        """Names and descriptors, in the order they came."""
        self.pid = 0
        self.ready = threading.Event()
        self._heard = threading.Event()
        self.jobs = directory / f"{name}.jobs"
        """What ``systemctl list-jobs`` prints to the daemon."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._fake = directory / f"{name}.bin"

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._socket.bind(str(self._path))
        self._fake.mkdir()
        self.jobs.touch()
        systemctl = self._fake / "systemctl"
        systemctl.write_text(f'#!/bin/sh\n[ "$1" = list-jobs ] && cat "{self.jobs}"\n')
        systemctl.chmod(0o755)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Kill the daemon and close what is kept."""
        self.kill()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END", str(self._path))
        self._thread.join()
        self._socket.close()
        self.forget()

    def start(self, command: Sequence[str], limit: int = 4096) -> None:
        """Start the daemon with what is kept.

        Args:
            command: its arguments, the program's path first.
            limit: how many descriptors it is told the store takes.
        """
        self.ready.clear()
        env = {
            **os.environ,
            "PATH": f"{self._fake}:{os.environ['PATH']}",
            "NOTIFY_SOCKET": str(self._path),
            "FDSTORE": str(limit),
            "FWD_UNIT": self.name,
        }
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = []
        if self.kept:
            env["LISTEN_FDS"] = str(len(self.kept))
            env["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.kept)
            for index, (_, fd) in enumerate(self.kept):
                actions.append((os.POSIX_SPAWN_DUP2, fd, _FIRST_FD + index))
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        out = fcntl.fcntl(log, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD)
        os.close(log)
        actions += [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
        # the pid is known only in the child
        whole = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *command]
        try:
            self.pid = os.posix_spawn(whole[0], whole, env, file_actions=actions)
        finally:
            os.close(out)

    def end(self, *, restart: bool = True, timeout_s: float = 10.0) -> int:
        """SIGTERM the daemon, as for ``systemctl restart`` or ``stop``; returns its exit code."""
        job = "restart" if restart else "stop"
        self.jobs.write_text(f"7 {self.name} {job} running\n")
        os.kill(self.pid, signal.SIGTERM)
        code = self._reap(timeout_s)
        self.jobs.write_text("")
        self._catch_up()
        if not restart:
            self.forget()
        return code

    def kill(self) -> None:
        """SIGKILL the daemon, if it runs."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap(10.0)
            self._catch_up()

    def running(self) -> bool:
        """Whether the daemon has not ended by itself."""
        if not self.pid:
            return False
        if os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        return bool(self.pid)

    def forget(self) -> None:
        """Close what is kept."""
        for _, fd in self.kept:
            os.close(fd)
        self.kept = []

    def keep(self, name: str, fd: int) -> None:
        """Keep a duplicate of a descriptor, unless it is there already."""
        if any(_same(fd, other) for _, other in self.kept):
            return
        self.kept.append((name, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _SAFE_FD)))

    def names(self) -> list[str]:
        """The names of what is kept."""
        return [name for name, _ in self.kept]

    def _catch_up(self) -> None:
        """Wait until all that an ended daemon has said is done."""
        self._heard.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"HEARD", str(self._path))
        self._heard.wait(5)

    def _reap(self, timeout_s: float) -> int:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        message = f"{self.name} did not end within {timeout_s:.0f} s"
        raise TimeoutError(message)

    def _listen(self) -> None:
        while True:
            data, rights, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(16))
            fds = array.array("i")
            for _, _, value in rights:
                fds.frombytes(value)
            if data == b"END":
                return
            if data == b"HEARD":
                self._heard.set()
                continue
            fields = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            self._obey(fields, fds)
            for fd in fds:  # a barrier's is closed when all before it is done
                os.close(fd)

    def _obey(self, fields: dict[str, str], fds: Sequence[int]) -> None:
        if fields.get("READY") == "1":
            self.ready.set()
        if fields.get("FDSTORE") == "1":
            for fd in fds:
                self.keep(fields["FDNAME"], fd)
        if fields.get("FDSTOREREMOVE") == "1":
            for name, fd in [one for one in self.kept if one[0] == fields["FDNAME"]]:
                self.kept.remove((name, fd))
                os.close(fd)


def _same(left: int, right: int) -> bool:
    pid = os.getpid()
    return int(_LIBC.syscall(_SYS_KCMP, pid, pid, _KCMP_FILE, left, right)) == 0
