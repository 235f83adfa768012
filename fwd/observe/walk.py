"""The walk: one line a stage, with the table entry it used (what `fwd demo` prints).

Pure. csrc/path/step.h says what a..d, len, flag and addr of a step hold, stage by stage; this
module is its reader. The first column is the row of the table in docs/datapath.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from fwd.model.enums import CT_TEXT, DROP_TEXT, STAGE_INFO, Drop, Stage
from fwd.model.identity import identity_name
from fwd.observe.dissect import host_port, protocol_name
from fwd.observe.words import MATCH_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fwd.datapath.packet import Event, Step

__all__ = [
    "Walk",
    "policy_rule_id",
    "step_line",
    "walk_from_events",
    "walk_from_records",
    "walk_lines",
]

_EVENT_STEP = 2
_TCP = 6
_NO_RULES: Mapping[int, str] = {}
_POLICY_STAGES = frozenset({Stage.POLICY_EGRESS, Stage.POLICY_INGRESS})
_ETHERTYPES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "VLAN", 0x88A8: "VLAN"}


@dataclass(frozen=True, slots=True)
class Walk:
    """The steps of one packet on one node."""

    time_ns: int
    hash: int
    lines: tuple[str, ...]


def walk_lines(steps: Iterable[Step], rules: Mapping[int, str] = _NO_RULES) -> list[str]:
    """Render the steps of one packet, in the order it took them.

    Args:
        steps: of the packet.
        rules: rule_id to its text; ids without one stand as numbers.
    """
    return [step_line(step, rules.get(policy_rule_id(step))) for step in steps]


def policy_rule_id(step: Step) -> int:
    """The rule behind the entry that a policy step used; 0 = none, or another stage."""
    return step.a if step.stage in _POLICY_STAGES and step.flag else 0


def step_line(step: Step, rule: str | None = None) -> str:
    """Render one step: row, function, what it saw and which entry it used.

    Args:
        step: of any stage.
        rule: text of the policy rule behind it, where one is known.
    """
    info = STAGE_INFO.get(step.stage)
    row, function = (str(info.row), info.function) if info else ("?", f"stage {step.stage}")
    render = _RENDER.get(step.stage)
    text = (render(step) if render else "") + (f": {rule}" if rule else "")
    if step.drop:
        text = f"{text}{': ' if text else ''}DROP {step.drop} {_drop_text(step.drop)}"
    return f"{row:>2}  {function:<24} {text}".rstrip()


def walk_from_events(events: Iterable[Event]) -> list[Walk]:
    """Group step events: consecutive ones with the same hash and time are one packet's.

    Events of other types between them do not part a packet's steps. No stage is passed twice, so
    one that comes again belongs to the next packet of the same flow and batch.
    """
    return _group(
        (event.time_ns, event.hash, event.step.stage, step_line(event.step))
        for event in events
        if event.type == _EVENT_STEP
    )


def walk_from_records(records: Iterable[Mapping[str, Any]]) -> list[Walk]:
    """Group the ``step`` records of the monitor stream, as ``walk_from_events`` does."""
    return _group(
        (record["time_ns"], int(record["mark"], 16), record["stage"], record["walk"])
        for record in records
        if record.get("type") == "step"
    )


def _group(steps: Iterable[tuple[int, int, object, str]]) -> list[Walk]:
    walks: list[Walk] = []
    seen: set[object] = set()
    for time_ns, flow, stage, line in steps:
        if walks and (walks[-1].time_ns, walks[-1].hash) == (time_ns, flow) and stage not in seen:
            walks[-1] = Walk(time_ns, flow, (*walks[-1].lines, line))
        else:
            walks.append(Walk(time_ns, flow, (line,)))
            seen = set()
        seen.add(stage)
    return walks


def _proto(step: Step) -> str:
    """``TCP``; protocols without a name read ``proto 47``."""
    name = protocol_name(step.len)
    return name if " " in name else name.upper()


def _drop_text(code: int) -> str:
    return DROP_TEXT.get(code, f"reason {code}")


def _v4(word: int) -> str:
    """Read an IPv4 address that lies in a host-order word as it lay in the packet."""
    return str(IPv4Address(word.to_bytes(4, "little")))


def _parse(step: Step) -> str:
    family = _ETHERTYPES.get(step.a, f"ethertype {step.a:#06x}")
    if family not in {"IPv4", "IPv6"} or not int(step.addr):
        return f"{family}, frame {step.b} bytes"
    return f"{family} {_proto(step)} to {step.addr}, frame {step.b} bytes"


def _source_ip(step: Step) -> str:
    if step.drop == Drop.INVALID_SOURCE_MAC:
        return f"not the MAC of endpoint {step.a}"
    verb = "is" if step.flag else "is not an address of"
    return f"{step.addr} {verb} endpoint {step.a}, identity {identity_name(step.b)}"


_LB_REFUSALS: dict[int, str] = {
    Drop.IS_A_CLUSTERIP: "a ClusterIP, not there for the outside",
    Drop.DENIED_BY_LB_SRC_RANGE_CHECK: "the client is in none of its source ranges",
}


def _lb(step: Step) -> str:
    frontend = f"{host_port(step.addr, step.d >> 16)} {_proto(step)}"
    if not step.flag:
        return f"{frontend} is no service"
    head = f"service {frontend}, rev_nat {step.a}"
    if not step.c:
        return f"{head}: {_LB_REFUSALS.get(step.drop, 'no backend')}"
    address = "" if step.addr.version == 6 else f"{_v4(step.b)}:{step.d & 0xFFFF}, "
    return f"{head} -> backend {address}id {step.c}"


def _rev_nat(step: Step) -> str:
    if not step.flag:
        return f"rev_nat {step.a} is gone, the source stays"
    return f"rev_nat {step.a}: source becomes {host_port(step.addr, step.d >> 16)} again"


def _snat(step: Step) -> str:
    port = step.d >> 16 if step.stage == Stage.SNAT else step.d & 0xFFFF
    six = step.addr.version == 6  # a step holds no second IPv6 address
    before = f"port {port}" if six else host_port(_v4(step.c), port)
    if not step.flag:
        return f"no mapping for {_proto(step)} {before}, peer {step.addr}"
    what = "source" if step.stage == Stage.SNAT else "destination"
    after = f"port {step.b} of ours" if six else host_port(_v4(step.a), step.b)
    return f"{_proto(step)} {what} {before} becomes {after}"


def _ct_flow(step: Step, ports: int, flags: int) -> str:
    side = "IN" if flags & 1 else "OUT"
    related = " related" if flags & 2 else ""
    table = "cilium_ct4_global" if step.len == 6 else "cilium_ct_any4_global"
    return f"{table} {_proto(step)} {side} :{ports >> 16} -> {step.addr}:{ports & 0xFFFF}{related}"


def _ct_lookup(step: Step) -> str:
    if step.drop:
        return f"{_proto(step)} has no tuple"
    state = CT_TEXT.get(step.a, "unknown")
    hit = "hit" if step.flag else "no entry"
    return f"{_ct_flow(step, step.b, step.c)}: {hit}, state {state}"


def _ct_create(step: Step) -> str:
    side = "IN" if step.c & 1 else "OUT"
    table = "cilium_ct4_global" if step.len == 6 else "cilium_ct_any4_global"
    state = CT_TEXT.get(step.a, "unknown")
    if step.drop:
        return f"{table} is full"
    if step.flag:
        return f"{table} {_proto(step)} {side}: entry created"
    return f"{table}: entry stands, state {state}"


def _ipcache(step: Step) -> str:
    if not step.flag:
        return f"no ipcache entry -> identity {identity_name(step.a)}"
    entry = f"ipcache {step.addr}/{step.len} -> identity {identity_name(step.a)}"
    return f"{entry}, tunnel endpoint {_v4(step.b)}" if step.b else f"{entry}, no tunnel"


def _policy(step: Step) -> str:
    head = f"endpoint {step.d}, identity {identity_name(step.c)}, {_proto(step)}"
    if step.flag:
        action = "deny" if step.drop else "allow"
        return f"{head}: {action} by entry {MATCH_TEXT.get(step.b, step.b)}, rule {step.a}"
    return f"{head}: no entry" if step.drop else f"{head}: fragmentation needed, always passes"


def _local(step: Step) -> str:
    if not step.flag:
        return f"{step.addr} is not in cilium_lxc: not on this node"
    if step.b & 1:
        return f"cilium_lxc {step.addr} -> the node itself"
    device = f", ifindex {step.c}" if step.c else ""
    return f"cilium_lxc {step.addr} -> endpoint {step.a}{device}"


def _endpoint(step: Step) -> str:
    text = _local(step)
    known = step.flag and not step.b & 1
    return f"{text}, identity {identity_name(step.d)}" if known else text


def _encap(step: Step) -> str:
    if not step.flag:
        return "no tunnel endpoint"
    return f"VXLAN VNI {step.a} to {step.addr}"


def _to_stack(step: Step) -> str:
    return f"{step.addr} is left to the host's stack, TTL {step.a}"


def _l3(step: Step) -> str:
    hop = f"endpoint {step.b}" if 0 < step.b < 0x10000 else "the next hop"
    left = f"TTL {step.a} -> {step.a - 1}" if step.a else "TTL 0"
    return f"{left}, MACs of {hop}"


def _decap(step: Step) -> str:
    if not step.flag:
        return f"not VXLAN, datagram {step.b} bytes from {step.addr}"
    return f"VXLAN VNI {step.a} from {step.addr}, datagram {step.b} bytes"


def _peer(step: Step) -> str:
    if not step.flag:
        return f"{step.addr} is in no peers row"
    behind = f", ipcache says {identity_name(step.c)}" if step.c != step.b else ""
    tunnel = f" behind {_v4(step.d)}" if step.d else ""
    return f"peer {step.addr}, VNI {step.a} -> identity {identity_name(step.b)}{behind}{tunnel}"


def _icmp_error(step: Step) -> str:
    if step.len == _TCP:
        return f"reset from {step.addr} to the sender, for {step.d} {_drop_text(step.d)}"
    family = "ICMP" if step.len == 1 else "ICMPv6"
    mtu = f" MTU {step.c}" if step.c else ""
    text = f"{family} {step.a}/{step.b}{mtu} from {step.addr} to the sender"
    return f"{text}, for {step.d} {_drop_text(step.d)}"


_RENDER: dict[int, Callable[[Step], str]] = {
    Stage.PARSE: _parse,
    Stage.SOURCE_IP: _source_ip,
    Stage.LB: _lb,
    Stage.CT_EGRESS: _ct_lookup,
    Stage.IPCACHE_DST: _ipcache,
    Stage.POLICY_EGRESS: _policy,
    Stage.CT_CREATE_EGRESS: _ct_create,
    Stage.LOCAL: _local,
    Stage.ENCAP: _encap,
    Stage.TO_STACK: _to_stack,
    Stage.TO_OVERLAY: lambda step: f"VNI {step.a}: nothing to rewrite",
    Stage.TO_NETDEV: lambda step: f"{step.a} bytes to the wire",
    Stage.FROM_NETDEV: lambda step: f"{step.a} bytes" + (f", VLAN {step.b}" if step.b else ""),
    Stage.DECAP: _decap,
    Stage.PEER: _peer,
    Stage.ENDPOINT: _endpoint,
    Stage.L3: _l3,
    Stage.SNAT: _snat,
    Stage.REV_SNAT: _snat,
    Stage.MSS: lambda step: f"MSS {step.a} lowered to {step.b}",
    Stage.MTU: lambda step: f"{step.a} bytes, the tunnel carries {step.b}",
    Stage.ICMP_ERROR: _icmp_error,
    Stage.CT_INGRESS: _ct_lookup,
    Stage.POLICY_INGRESS: _policy,
    Stage.CT_CREATE_INGRESS: _ct_create,
    Stage.REV_NAT: _rev_nat,
    Stage.DELIVER: lambda step: (
        f"to endpoint {step.a}, ifindex {step.b}, identity {identity_name(step.c)}"
    ),
}
