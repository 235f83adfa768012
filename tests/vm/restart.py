"""Stories of ends: restart and SIGKILL under a download and idle connections, then a reboot."""

from __future__ import annotations

import itertools
import json
import shlex
import time
from typing import TYPE_CHECKING, Any

from benchmarks.load import IDLE_CLIENT, IDLE_SERVER, TCP_PORT
from tests.vm.readme import pod_unit
from tests.vm.traffic import serve
from tests.vm.world import NGINX, show, status, until

if TYPE_CHECKING:
    from tests.vm.machine import Guest
    from tests.vm.world import World

__all__ = ["reboot", "restarts"]

FLOWS = 200
SIZE_MB = 96
"""Of the download: more than SLOW_READER takes meanwhile."""
SLOW_READER = """
import hashlib, pathlib, sys, time
digest, hurry = hashlib.sha256(), pathlib.Path(sys.argv[1])
while data := sys.stdin.buffer.read(65536):
    digest.update(data)
    if not hurry.exists():
        time.sleep(0.2)
print(digest.hexdigest(), flush=True)
"""
PINGS_S = 0.1
SETTLE_S = 3


class Pings:
    """Pings from the pod on node1 to the one on node2, from now on."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        inside(guest, "ping", f"ping -D -O -i {PINGS_S} {NGINX}")

    def answers(self) -> list[float]:
        """When each answer came, by our monotonic clock."""
        offset = time.monotonic() - float(self._guest.out("date +%s.%N"))
        lines = self._guest.out("grep ' bytes from ' /root/ping.log").splitlines()
        return [float(line[1 : line.index("]")]) + offset for line in lines]

    def longest_gap(self, since: float) -> tuple[float, float]:
        """The longest time without an answer since then, in seconds, and when it ended."""
        at = [one for one in self.answers() if one >= since - 1]
        return max((b - a, b) for a, b in itertools.pairwise(at))

    def stop(self) -> None:
        """End them."""
        self._guest.out("systemctl stop ping")


def inside(guest: Guest, name: str, command: str) -> None:
    """Start a command in the pod `curl`, as a unit, what it prints goes to /root/NAME.log."""
    words = shlex.quote(f"exec > /root/{name}.log 2>&1; {command}")
    guest.spawn(name, f"ip netns exec curl bash -c {words}")


class Load:
    """What goes on meanwhile, from the pod on node1 to the one on node2."""

    def __init__(self, world: World) -> None:
        self._one, two = world.nodes
        two.out(f"head -c {SIZE_MB}M /dev/urandom > /root/web/data")
        self._digest = two.out("sha256sum /root/web/data").split()[0]
        two.put("/root/idle_server.py", IDLE_SERVER.encode())
        self._one.put("/root/slow_reader.py", SLOW_READER.encode())
        self._one.put("/root/idle_client.py", IDLE_CLIENT.encode())
        two.spawn("idle", f"ip netns exec nginx python3 /root/idle_server.py {TCP_PORT}")
        until(two, f"ip netns exec nginx ss -ltn | grep -q ':{TCP_PORT} '")
        inside(self._one, "idle", f"exec python3 /root/idle_client.py {NGINX} {TCP_PORT} {FLOWS}")
        until(self._one, "grep -q listening /root/idle.log", 120)
        curl = f"curl -sS http://{NGINX}:8080/data | python3 /root/slow_reader.py /root/hurry"
        inside(self._one, "download", f"set -o pipefail; {curl}; echo ended $?")
        self.pings = Pings(self._one)

    def going(self) -> bool:
        """Whether the download is still under way."""
        return self._one.out("cat /root/download.log") == ""

    def finish(self) -> dict[str, Any]:
        """Wait for the download; say whether it is whole and how many connections live."""
        self._one.out("touch /root/hurry")
        ended = until(self._one, "grep ended /root/download.log", 120)
        digest = self._one.out("head -n 1 /root/download.log")
        self.pings.stop()
        self._one.out("systemctl kill -s TERM idle")
        idle = json.loads(until(self._one, "grep opened /root/idle.log"))
        return idle | {"ended": ended, "whole": digest == self._digest}


def restarts(world: World) -> None:
    """Each side once restarted and once killed, under load; nothing of it may be lost."""
    check = world.report.check
    with check("restart", f"load: {FLOWS} idle connections, a download, pings", vital=True) as row:
        load = Load(world)
        row.figure = f"{SIZE_MB} MB, slowly"
    for guest in reversed(world.nodes):
        for what, order in (
            ("systemctl restart fwd", "systemctl restart fwd"),
            ("kill -9", "kill -9 $(systemctl show -P MainPID fwd)"),
        ):
            with check("restart", f"{guest.name}: {what} under load") as row:
                assert load.going(), "the download has ended already"
                since = time.monotonic()
                pid = show(guest, "MainPID")
                guest.out(order)
                until(guest, f"[ $(systemctl show -P MainPID fwd) != {pid} ]")
                told = status(guest)
                time.sleep(SETTLE_S)
                gap, _ = load.pings.longest_gap(since)
                row.detail = {"gap_ms": round(gap * 1000), "revision": told["revision"]}
                row.figure = f"longest gap between two answers to pings {gap:.2f} s"
                said = guest.out("journalctl -u fwd -o cat --no-pager -n 12")
                assert "tables taken over" in said, said
    with check("restart", "download intact, no connection reset") as row:
        row.detail = load.finish()
        opened, alive = row.detail["opened"], row.detail["alive"]
        row.figure = f"{opened - alive} of {opened} reset, sha256 the same, {row.detail['ended']}"
        assert row.detail["whole"], row.detail
        assert row.detail["ended"] == "ended 0", row.detail
        assert (opened, alive) == (FLOWS, FLOWS)
    world.node2.out("systemctl stop idle")


def reboot(world: World) -> None:
    """Reboot node2: how long until a pod on node1 is answered by one there again."""
    one, two = world.nodes
    _pods_at_boot(two)
    pings = Pings(one)
    with world.report.check("reboot", "node2 is down, and comes up by itself", vital=True) as row:
        began = time.monotonic()
        two.reboot()
        two.wait()
        row.figure = f"systemd says running {time.monotonic() - began:.0f} s after the order"
    with world.report.check("reboot", "traffic flows again") as row:
        status(two)
        time.sleep(SETTLE_S)
        gap, answered = pings.longest_gap(began)
        booted = two.boot_at()
        ready = int(show(two, "ActiveEnterTimestampMonotonic")) / 1e6
        row.detail = {"gap_s": gap, "fwd_ready_s": ready, "answered_s": answered - booted}
        row.figure = (
            f"without an answer {gap:.1f} s, most of it booting: from the kernel's start "
            f"{ready:.1f} s to fwd's READY, {answered - booted:.1f} s to the first answer"
        )
        assert answered - booted > 0, "never gone"
    pings.stop()
    with world.report.check("reboot", "a page from node2 after its reboot") as row:
        serve(two)
        row.figure = one.out(f"ip netns exec curl curl -sS -m 20 http://{NGINX}/")
        assert row.figure == "nginx on node2"


def _pods_at_boot(guest: Guest) -> None:
    """Make the pod's namespace by the unit that docs/operations.md gives for it."""
    guest.put("/etc/systemd/system/pod@.service", pod_unit().encode())
    guest.out("systemctl enable pod@nginx")
