"""Stories at both ends: README.md's section typed word for word, and the package removed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vm.readme import two_hosts
from tests.vm.world import until

if TYPE_CHECKING:
    from tests.vm.machine import Guest
    from tests.vm.world import World

__all__ = ["follow_readme", "remove"]

FILES = "/root/files-before"
LISTING = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /root"
    " -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/tmp"
    " -o -path /var/lib/nginx -o -path '*/__pycache__' -o -path /var/cache \\)"
    " -prune -o -print | sort"
)
"""Every file a package could leave behind: logs and dpkg's own book are not its."""


def follow_readme(world: World) -> None:
    """Type the commands of "Two hosts", one row each."""
    typed = two_hosts()
    for guest in world.nodes:
        guest.put(f"/root/{world.package.name}", world.package.read_bytes())
        guest.out(f"{LISTING} > {FILES}")
    for pair in zip(typed.first, typed.second, strict=True):
        with world.report.check("readme", pair[0], vital=True) as row:
            said = world.both(*pair)
            row.detail = dict(zip(pair, said, strict=True))
            row.figure = " ".join(said[0].splitlines()[-1:]).strip()
    with world.report.check("readme", f"{typed.serve} | {typed.fetch}", vital=True) as row:
        world.node2.put("/root/README", b"from the second host\n")
        world.node2.spawn("serve", f"--working-directory=/root {typed.serve}")
        until(world.node2, "ip netns exec nginx ss -ltn | grep -q ':80 '")
        page = world.node1.out(typed.fetch)
        assert "README" in page, page
        row.figure = "the page came"
    world.node2.out("systemctl stop serve")


def remove(world: World) -> None:
    """Purge it where it runs, on both: nothing is left."""
    with world.report.check("remove", "dpkg --purge fwd leaves nothing, on both") as row:
        world.both("dpkg --purge fwd")
        left = [f"{guest.name} {one}" for guest in world.nodes for one in _left(guest)]
        assert left == [], "left: " + ", ".join(left)
        row.figure = "no file, unit, user, process, device, route, table or port"


def _left(guest: Guest) -> list[str]:
    """What of fwd is there still, in words."""
    looks = {
        "file": f"{LISTING} | comm -13 {FILES} - | grep -v /pod@",
        "run": "ls -d /run/fwd",
        "unit": "systemctl list-unit-files --no-legend 'fwd*' | grep .",
        "user": "getent passwd fwd",
        "process": "pgrep -af '/fwd (run|door)'",
        "device": "ip -br link | grep -E 'cilium|lxc'",
        "pod's device": "for n in $(ip netns | cut -d' ' -f1); do ip -n $n -br link; done"
                        " | grep -v '^lo '",
        "route": "ip route; ip -6 route | grep -E '10.244|10.96|fd00|cilium'",
        "rule": "nft list tables | grep fwd",
        "port": "ss -Hlun sport = :8472 | grep .",
    }  # fmt: skip
    looks["route"] = "(ip route; ip -6 route) | grep -E '10[.]244|10[.]96|cilium'"
    return [
        f"{name} {line}"
        for name, script in looks.items()
        for line in guest.run(script).stdout.splitlines()
    ]
