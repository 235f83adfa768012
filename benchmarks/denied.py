"""What policy denies, sent all the same: nothing of it may arrive, whatever becomes of a daemon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.load import NUMBERS_OUT, POD_A, POD_B, UDP_PORT, said, spawn

if TYPE_CHECKING:
    from tests.netns.net import Net

__all__ = ["Denied", "rules"]

PORT = 7100
RATE = 1000
"""Denied datagrams a second, each way."""
CONNECTS = """
import json, signal, socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
going = True
def stop(*_):
    global going
    going = False
signal.signal(signal.SIGTERM, stop)
tried = 0
while going:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex((address, port))
        time.sleep(0.02)
    tried += 1
print(json.dumps({"sent": tried}), flush=True)
"""
"""One SYN each 20 ms, each from a port of its own; none is sent twice."""
COUNTERS = f"""
table inet arrived {{
    counter datagrams {{ }}
    counter syns {{ }}
    counter allowed {{ }}
    chain arrivals {{
        type filter hook prerouting priority -300;
        iifname "eth0" udp dport {PORT} counter name datagrams
        iifname "eth0" tcp dport {PORT} counter name syns
        iifname "eth0" udp dport {UDP_PORT} counter name allowed
    }}
}}
"""
"""Counts in a pod, before anything can drop there. ``allowed`` shows that it does count."""


def rules() -> list[dict[str, Any]]:
    """Rows of node1's policy that deny all this and nothing else."""
    return [
        {"endpoint": "default/a0", "direction": direction, "identity": "any", "proto": proto,
         "port": PORT, "action": "deny"}
        for direction in ("egress", "ingress") for proto in ("tcp", "udp")
    ]  # fmt: skip


class Denied:
    """Datagrams and SYNs between ``a0`` and ``b0`` that node1's policy denies, both ways."""

    def __init__(self, net: Net) -> None:
        """Begin; ``net``'s daemons run, and node1's file has ``rules()``."""
        self._net = net
        path = net.lab.directory / "arrived.nft"
        path.write_text(COUNTERS, encoding="ascii")
        self._senders = {}
        for pod in ("a0", "b0"):
            net.lab.run(pod, "nft", "-f", str(path))
        for pod, to in (("a0", POD_B), ("b0", POD_A)):
            for name, program, rate in (("udp", NUMBERS_OUT, [RATE]), ("tcp", CONNECTS, [])):
                one = f"denied-{name}-{pod}"
                self._senders[one] = spawn(net, pod, one, program, to, PORT, *rate, wait=False)

    def finish(self) -> dict[str, Any]:
        """End it, before the load is ended.

        Returns:
            ``denied_sent``, datagrams and SYNs, and ``denied_arrived``, of either, where a train
            of datagrams may count as one.

        Raises:
            RuntimeError: a pod counts nothing at all, so that none can be told.
        """
        for child in self._senders.values():
            child.terminate()
        for child in self._senders.values():
            child.wait(timeout=60)
        arrived = {"datagrams": 0, "syns": 0}
        for pod in ("a0", "b0"):
            counted = self._counted(pod)
            if not counted["allowed"]:
                message = f"{pod}: nftables counts no arrivals, not even allowed ones"
                raise RuntimeError(message)
            for kind in arrived:
                arrived[kind] += counted[kind]
        return {
            "denied_sent": sum(said(self._net, name)["sent"] for name in self._senders),
            "denied_arrived": arrived,
        }

    def _counted(self, pod: str) -> dict[str, int]:
        text = self._net.lab.run(pod, "nft", "-j", "list", "counters").stdout
        rows = [row["counter"] for row in json.loads(text)["nftables"] if "counter" in row]
        return {row["name"]: row["packets"] for row in rows}
