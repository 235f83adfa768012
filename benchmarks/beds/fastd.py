"""fastd with method null: a userspace tunnel without encryption, one packet a system call."""

from __future__ import annotations

from benchmarks.beds.bed import POD_MTU, POD_NET, TUN, UNDERLAY, Bed

__all__ = ["Fastd"]

OVERLAY = {"node1": "10.99.0.1", "node2": "10.99.0.2"}
PORT = 10000

_CONFIG = """\
mode tap;
interface "fastd0";
mtu {mtu};
method "null";
bind {ip}:{port};
secret "{secret}";
peer "{other}" {{
    remote {other_ip} port {port};
    key "{public}";
}}
"""


class Fastd(Bed):
    """Pods behind routed veths, nodes joined by fastd's TAPs."""

    name = "fastd"
    title = "fastd, method null, routed veth pods"
    commands = ("ip", "ping", "fastd")
    files = (TUN,)

    def build(self) -> None:
        """Make keys, start the daemons, route to the other's pods through the tunnel."""
        self.nodes("node1", "node2")
        self.routed_pod("node1", "a")
        self.routed_pod("node2", "b")
        keys = {node: self._keys() for node in UNDERLAY}
        for node, other in (("node1", "node2"), ("node2", "node1")):
            config = self.lab.directory / f"fastd-{node}.conf"
            values = {"ip": UNDERLAY[node], "other": other, "other_ip": UNDERLAY[other]}
            secret, public = keys[node][0], keys[other][1]
            config.write_text(
                _CONFIG.format(mtu=POD_MTU, port=PORT, secret=secret, public=public, **values)
            )
            self.lab.spawn(node, "fastd", "--config", str(config), log=f"fastd-{node}.log")
            self._address(node, other)

    def _keys(self) -> tuple[str, str]:
        """Make a secret and its public key, both in hex."""
        said = self.lab.run(None, "fastd", "--generate-key").stdout
        words = {line.split(":")[0]: line.split(":")[1].strip() for line in said.splitlines()
                 if ":" in line}  # fmt: skip
        return words["Secret"], words["Public"]

    def _address(self, node: str, other: str) -> None:
        at = ("-n", self.lab.name(node))
        self.lab.wait_for(
            f"the TAP of fastd on {node}",
            lambda: (
                self.lab.run(None, "ip", *at, "link", "show", "fastd0", check=False).returncode == 0
            ),
        )
        self.lab.ip(*at, "addr", "add", f"{OVERLAY[node]}/24", "dev", "fastd0")
        self.lab.ip(*at, "link", "set", "fastd0", "up")
        self.lab.ip(*at, "route", "add", f"{POD_NET[other]}.0/24", "via", OVERLAY[other])
