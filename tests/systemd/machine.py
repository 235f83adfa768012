"""systemd as PID 1 of a Debian tree, in namespaces of its own: a machine without a kernel.

host                          machine (pid, mount, net, uts, ipc and cgroup namespaces)
+---------+                   +-------------------------------------------------+
| a test  | -- nsenter -----> | systemd -- fwd.service, door, journal           |
+---------+                   | eth9 192.168.56.105 = veth = eth8 (nobody)      |
                              +-------------------------------------------------+
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Machine", "Shell", "machine"]

BOOT_S = 60
CGROUPS = Path("/sys/fs/cgroup")
BOOT = r"""
set -e
tree=$1 tun=$2
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then
    mount -t cgroup2 cgroup "$tree/sys/fs/cgroup"
else
    mount -t tmpfs tmpfs "$tree/sys/fs/cgroup"
    mkdir "$tree/sys/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd cgroup "$tree/sys/fs/cgroup/systemd"
fi
for d in run dev tmp; do mount -t tmpfs tmpfs "$tree/$d"; done
mkdir "$tree/dev/net" "$tree/dev/shm" "$tree/dev/pts"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$tree/dev/pts"
ln -s pts/ptmx "$tree/dev/ptmx"
mknod -m 666 "$tree/dev/net/tun" c $tun
for d in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "$tree/dev/${d%:*}" c 1 ${d#*:}
done
mknod -m 666 "$tree/dev/tty" c 5 0
touch "$tree/dev/console"
ip link set lo up
ip link add eth9 type veth peer name eth8
ip addr add 192.168.56.105/24 dev eth9
ip link set eth9 up
ip link set eth8 up
export container=fwd
exec chroot "$tree" /lib/systemd/systemd --system --log-target=journal
"""


class Shell:
    """What is asked of a machine; each kind has a ``run`` of its own."""

    def run(self, script: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it."""
        raise NotImplementedError

    def out(self, script: str) -> str:
        """Run a script that must succeed; what it printed."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}:\n{done.stdout}{done.stderr}{self.journal()}"
        return done.stdout.strip()

    def journal(self) -> str:
        """What the units said."""
        return self.run("journalctl --no-pager -n 40 -u fwd -u fwd-door").stdout


@dataclass
class Machine(Shell):
    """One that runs."""

    pid: int
    """Of its systemd, in our namespace."""
    tree: Path

    def run(self, script: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it."""
        enter = ["nsenter", "-t", str(self.pid), "-m", "-p", "-n", "-u", "-i"]
        command = [*enter, "chroot", str(self.tree), "/bin/bash", "-c", script]
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environ
        )


@contextlib.contextmanager
def machine(tree: Path) -> Iterator[Machine]:
    """Boot a tree, and take it down with everything in it.

    Raises:
        OSError: systemd does not come up here; the text has what it said.
    """
    name = f"fwdt-{os.getpid()}"
    # All that systemd itself makes groups in: it would leave them in the host's root.
    hybrid = [CGROUPS / one for one in ("systemd", "unified") if (CGROUPS / one).is_dir()]
    groups = [hierarchy / name for hierarchy in hybrid or [CGROUPS]]
    for group in groups:
        group.mkdir()
    tun = os.stat("/dev/net/tun").st_rdev  # noqa: PTH116
    boot = "".join(f'echo $$ > "{group}/cgroup.procs"\n' for group in groups)
    boot += "exec unshare --kill-child --pid --fork --mount "
    boot += '--uts --net --ipc --cgroup bash -c "$0" boot "$@"'
    numbers = f"{os.major(tun)} {os.minor(tun)}"
    process = subprocess.Popen(
        ["bash", "-c", boot, BOOT, str(tree), numbers],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    init = 0
    try:
        init = _first_child(process)
        one = Machine(init, tree)
        _wait(one, process)
        yield one
    finally:
        for pid in filter(None, (init, process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        for group in groups:
            _remove(group)


def _first_child(process: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.05)
    raise OSError(f"no namespaces: {process.communicate()[0]}")


def _wait(one: Machine, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + BOOT_S
    state = ""
    while time.monotonic() < deadline and process.poll() is None:
        done = one.run("systemctl is-system-running")
        state = (done.stdout + done.stderr).strip()
        if state in {"running", "degraded"}:
            return
        time.sleep(0.5)
    raise OSError(f"systemd is {state!r} after {BOOT_S} s")


def _remove(group: Path) -> None:
    """Remove control groups; the kernel needs a moment after the last process."""
    for _ in range(50):
        for path in sorted(group.rglob("*/"), key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
