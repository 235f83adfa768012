"""What path rows say about tables between packets: conntrack entries, metrics, a sweep.

A step ``{entries: {key: fields}}`` names every main entry there is, no more and no fewer; with
``companions: true`` the ICMP companions, too. A key reads like the lookups of datapath.md 3.9:
"protocol flags saddr daddr sport dport", all as stored. Of a field (control/dumps' names) the value
must be equal; ``flags`` is a list of the names of 2.3. A step ``{metrics: {"0 egress": 2}}`` states
packets by reason and direction, 0 = none. ``{at: 1061, sweep: true}`` is the collector's walk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fwd.datapath.binding import Datapath
    from fwd.model.rows import CtRow

__all__ = ["check_state", "is_state"]

PROTO = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp"}
RELATED = 2
FLAGS = [
    "rx_closing",
    "tx_closing",
    "nat46",
    "lb_loopback",
    "seen_non_syn",
    "node_port",
    "proxy_redirect",
    "dsr",
    "from_l7lb",
    "reserved",
    "from_tunnel",
]
DIRECTIONS = {0: "unknown", 1: "ingress", 2: "egress", 3: "service"}


def is_state(step: dict[str, Any]) -> bool:
    """True for a step that is no packet but looks at the tables."""
    return any(key in step for key in ("entries", "metrics", "sweep"))


def check_state(dp: Datapath, step: dict[str, Any], now_s: int) -> None:
    """Compare what the step states; sweep first where it says so."""
    if step.get("sweep"):
        for tcp in (True, False):
            dp.ct_sweep(tcp=tcp, now_s=now_s, cursor=0, budget=1 << 20)
    if "entries" in step:
        check_entries(dp, step["entries"], companions=step.get("companions", False))
    if "metrics" in step:
        packets = {f"{row.reason} {DIRECTIONS[row.dir]}": row.packets for row in dp.metrics()}
        assert {name: packets.get(name, 0) for name in step["metrics"]} == step["metrics"]


def check_entries(dp: Datapath, expect: dict[str, Any], *, companions: bool) -> None:
    """All entries, and of each the fields that are stated."""
    rows = [row for tcp in (True, False) for row in dp.ct(tcp=tcp)]
    found = {key(row): row for row in rows if companions or not row.tuple_flags & RELATED}
    assert sorted(found) == sorted(expect)
    for name, fields in expect.items():
        got = {field: value(found[name], field) for field in fields or {}}
        assert got == (fields or {}), name


def key(row: CtRow) -> str:
    """A stored key as text."""
    proto = PROTO[row.proto]
    return f"{proto} {row.tuple_flags} {row.saddr} {row.daddr} {row.sport} {row.dport}"


def value(row: CtRow, field: str) -> Any:
    """A field of an entry as a row writes it."""
    if field == "flags":
        return [name for bit, name in enumerate(FLAGS) if row.flags >> bit & 1]
    return getattr(row, field)
