"""Stories of the unit: reload and refusal, journal's priorities, watchdog, security score."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.vm.world import NGINX, show, status

if TYPE_CHECKING:
    from tests.vm.world import World

__all__ = ["unit"]

BAD = "/etc/fwd/fwd.yaml.d/bad.yaml"
MOST_EXPOSED = 2.0


def unit(world: World) -> None:
    """Everything on node1; node2 goes on."""
    _reload(world)
    _journal(world)
    _watchdog(world)
    for name in ("fwd", "fwd-door"):
        with world.report.check("security", f"systemd-analyze security {name}") as row:
            last = world.node1.out(f"systemd-analyze security --no-pager {name}").splitlines()[-1]
            row.figure = last.lstrip("→ ")
            assert float(last.split(":")[1].split()[0]) <= MOST_EXPOSED


def _reload(world: World) -> None:
    one, check = world.node1, world.report.check
    before = status(one)["revision"]
    with check("reload", "systemctl reload fwd: a drop-in is in force") as row:
        one.put("/etc/fwd/fwd.yaml.d/ttl.yaml", b"features: {ttl_exceeded_reply: true}\n")
        one.out("systemctl reload fwd")
        row.figure = f"exit 0, revision {before} to {status(one)['revision']}"
        assert status(one)["revision"] == before + 1
    after = status(one)["revision"]
    with check("reload", "a wrong one is refused, with file and line") as row:
        one.put(BAD, b"features:\n  ttl_exceded_reply: true\n")
        done = one.run("systemctl reload fwd")
        said = one.out("journalctl -u fwd -o cat --no-pager -n 6")
        (line,) = {
            line for line in said.splitlines() if f"{BAD}:2" in line and "event=" not in line
        }
        row.figure = f"exit {done.returncode}: {line}"
        assert done.returncode != 0
        told = status(one)
        assert told["revision"] == after, "nothing may have changed"
        assert show(one, "ActiveState") == "active"
    one.out(f"rm -f {BAD}")


def _journal(world: World) -> None:
    with world.report.check(
        "journal", "priorities: a refused reload is an error, READY is not"
    ) as row:
        one = world.node1
        levels = {}
        for level in ("err", "warning", "info"):
            lines = one.out(f"journalctl -u fwd -p {level}..{level} -o cat --no-pager -q || true")
            levels[level] = lines.splitlines()
        row.detail = levels
        row.figure = ", ".join(f"{len(lines)} {level}" for level, lines in levels.items())
        assert any(BAD in line for line in levels["err"]), levels
        for level, word in (
            ("err", f"{BAD}:2: "),
            ("warning", "offload off"),
            ("info", "'started'"),
        ):
            assert any(word in line for line in levels[level]), (word, levels)


def _watchdog(world: World) -> None:
    one = world.node1
    with world.report.check("watchdog", "SIGSTOP: systemd ends it and starts another") as row:
        before, pid = int(show(one, "NRestarts")), show(one, "MainPID")
        one.out(f"kill -STOP {pid}")
        began = time.monotonic()
        while int(show(one, "NRestarts")) == before:
            assert time.monotonic() - began < 60, "nobody noticed"
            time.sleep(0.5)
        found = time.monotonic() - began
        status(one)
        page = one.out(f"ip netns exec curl curl -sS -m 20 http://{NGINX}/")
        assert page == "nginx on node2"
        said = one.out("journalctl -o cat --no-pager -n 80 _PID=1").lower()
        assert "watchdog" in said, said
        row.figure = f"another after {found:.1f} s, the pod fetches again"
