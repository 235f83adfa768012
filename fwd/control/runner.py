"""As whom the daemon of a node file runs, and what that user may: for `fwd doctor`, run by root.

What root may says nothing of a unit with a user of its own. Asks systemd for the unit, /proc for a
daemon without one, and access(2) as that user; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["DOOR_VARIABLE", "UNIT", "Runner", "find_runner", "refused", "unit_environ"]

UNIT: Final = "fwd.service"
DOOR_VARIABLE: Final = "FWD_DOOR_SOCKET"
_SYSTEMD = Path("/run/systemd/system")
"""There while systemd is PID 1."""
_PROC = Path("/proc")
_COMMAND_S = 10
_ALL = frozenset({"cap_net_admin", "cap_sys_admin"})
_BITS = {"cap_net_admin": 12, "cap_sys_admin": 21}


@dataclass(frozen=True, slots=True)
class Runner:
    """Who runs the daemon."""

    user: str
    capabilities: frozenset[str]
    """Of ``cap_net_admin`` and ``cap_sys_admin``."""
    uid: int
    """-1: there is no such user."""
    gid: int
    groups: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    """As its unit says; of a process where its door is, and nothing else."""


def find_runner(config: Path, pid: int | None) -> Runner | None:
    """Find the user of a node file's daemon.

    Args:
        config: the node file; the unit counts only if it names this one.
        pid: of a daemon that answers, None = nobody does.

    Returns:
        None when it is the caller himself, or nothing is known.
    """
    runner = _of_unit(config) or _of_process(pid)
    return None if runner is None or runner.uid == os.geteuid() else runner


def unit_environ(config: Path) -> dict[str, str] | None:
    """Return the unit's ``Environment``; None where no unit runs this node file."""
    unit = _unit(config)
    return None if unit is None else _environ(unit)


def refused(runner: Runner, modes: str, paths: Iterable[Path]) -> list[Path] | None:
    """Return those of ``paths`` that the user may not use.

    Args:
        runner: whose rights; the file systems' only, not what a unit takes away besides.
        modes: letters of test(1): ``r``, ``w``, ``x``.
        paths: files that exist.

    Returns:
        None when that cannot be told: it takes root.
    """
    may = " && ".join(f'test -{mode} "$one"' for mode in modes)
    script = f'for one; do {may} || printf "%s\\0" "$one"; done'
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", *(str(path.absolute()) for path in paths)],
            user=runner.uid, group=runner.gid, extra_groups=runner.groups,
            cwd="/", capture_output=True, check=True, timeout=_COMMAND_S,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return [Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name]


def _of_unit(config: Path) -> Runner | None:
    unit = _unit(config)
    if unit is None:
        return None
    name = unit.get("User") or "root"
    given = frozenset(unit.get("AmbientCapabilities", "").lower().split()) & _ALL
    environ = _environ(unit)
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        return Runner(name, given, -1, -1, (), environ)
    groups = tuple(os.getgrouplist(user.pw_name, user.pw_gid))
    held = given if user.pw_uid else _ALL
    return Runner(user.pw_name, held, user.pw_uid, user.pw_gid, groups, environ)


def _of_process(pid: int | None) -> Runner | None:
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes()
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
        words = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None  # gone, or a number of another PID namespace
    if b"fwd" not in command:
        return None
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    uid, gid = int(fields["Uid"][1]), int(fields["Gid"][1])
    effective = int(fields["CapEff"][0], 16)
    held = frozenset(name for name, bit in _BITS.items() if effective >> bit & 1)
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    pairs = (os.fsdecode(word).partition("=") for word in words)
    environ = {key: value for key, _, value in pairs if key == DOOR_VARIABLE}
    return Runner(name, held, uid, gid, tuple(map(int, fields["Groups"])), environ)


def _unit(config: Path) -> dict[str, str] | None:
    """Return what systemd says of the unit, if it is the one that runs ``config``."""
    if not _SYSTEMD.is_dir() or shutil.which("systemctl") is None:
        return None
    names = "LoadState,User,AmbientCapabilities,Environment,ExecStart"
    try:
        done = subprocess.run(
            ["systemctl", "show", UNIT, "-p", names],
            capture_output=True, text=True, check=True, timeout=_COMMAND_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    wanted = str(config.absolute())
    words = found.get("ExecStart", "").replace("--config=", "").split()
    return found if found.get("LoadState") == "loaded" and wanted in words else None


def _environ(unit: Mapping[str, str]) -> dict[str, str]:
    words = shlex.split(unit.get("Environment", ""))
    return dict(word.split("=", 1) for word in words if "=" in word)
