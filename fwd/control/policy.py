"""Policy: rules of the node file to map entries, and the rule behind a verdict back again.

Pure. The lookup (datapath reference 5.3 [C], csrc/tables/policy.c) makes two longest-prefix
matches over protocol and port, one for the packet's identity (L3) and one for any (L4-only):
an L3 deny wins, then an L4-only deny, else the longer prefix. So a deny of any identity beats
every allow by itself, and within one identity a narrower deny beats a wider allow; what is left is
a narrower allow under a wider deny of the same identity. Such allows can never hold: they are
dropped here, and a deny beats every allow it overlaps.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fwd.model.enums import Drop
from fwd.model.identity import HOST
from fwd.model.policy import PROTO_NUMBERS, PortRange, Rule
from fwd.model.rows import PolicyRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fwd.config.schema import EndpointSection, NodeFile
    from fwd.control.world import World
    from fwd.datapath.packet import Event
    from fwd.model.policy import Direction

__all__ = ["DIRECTIONS", "compile_policy", "explain", "explain_event", "port_prefixes"]

DIRECTIONS: dict[Direction, int] = {"ingress": 1, "egress": 2}
PROTO_BITS = 8
PORT_BITS = 16
_VERDICT_EVENT = 5
"""FWD_EVENT_VERDICT of csrc/abi.h."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One map entry before conflicts are settled."""

    identity: int
    proto: int
    port: int
    prefix_len: int
    deny: bool
    rule_id: int

    def covers(self, other: _Entry) -> bool:
        """Tell whether every packet of ``other`` is one of this entry's; identities aside."""
        if self.prefix_len > other.prefix_len:
            return False
        if self.prefix_len and self.proto != other.proto:
            return False
        free = PROTO_BITS + PORT_BITS - max(self.prefix_len, PROTO_BITS)
        return self.port >> free == other.port >> free


def compile_policy(node: NodeFile) -> tuple[tuple[PolicyRow, ...], dict[int, Rule]]:
    """Return the policy map entries of all endpoints, and rule_id to rule.

    Rule ids: the n-th policy row of the file is n (from 1), those of manifests follow, then
    implied ones in the order of the endpoints, so the same file always gives the same numbers.
    """
    rules = _RuleBook(enumerate(_rules(node), start=1))
    groups: dict[tuple[str, Direction], list[_Entry]] = defaultdict(list)
    for rule_id, rule in rules.items():
        if rule.kind != "selects":
            groups[rule.endpoint, rule.direction] += _entries(rule_id, rule)
    rows: list[PolicyRow] = []
    for endpoint in node.endpoints:
        for direction, number in DIRECTIONS.items():
            rows += [
                PolicyRow(
                    lxc_id=endpoint.id,
                    dir=number,
                    identity=entry.identity,
                    proto=entry.proto,
                    port=entry.port,
                    prefix_len=entry.prefix_len,
                    deny=entry.deny,
                    rule_id=entry.rule_id,
                )
                for entry in _settle(groups[endpoint.name, direction])
            ]
    return tuple(rows), rules


def _rules(node: NodeFile) -> Iterator[Rule]:
    """Give the written rules, then those that enforcement implies for each endpoint."""
    for index, row in enumerate(node.policy):
        file, line = node.where(row.line)
        yield Rule(
            kind="rule",
            index=index,
            file=file,
            line=line,
            endpoint=row.endpoint,
            direction=row.direction,
            action=row.action,
            identity=row.identity,
            proto=row.proto,
            port="any" if row.port is None else str(row.port),
        )
    yield from node.rules
    for index, endpoint in enumerate(node.endpoints):
        line = endpoint.enforce.line or endpoint.line
        place = (endpoint.file, line) if endpoint.file else node.where(line)
        yield from _implied(*place, index, endpoint)


def _implied(file: str, line: int, index: int, endpoint: EndpointSection) -> Iterator[Rule]:
    """Not enforced = an explicit allow-all; enforced = the node itself stays welcome (5.4)."""

    def allow(
        kind: Literal["default-allow", "localhost"],
        direction: Direction,
        identity: int | Literal["any"],
    ) -> Rule:
        return Rule(
            kind=kind,
            index=index,
            file=file,
            line=line,
            endpoint=endpoint.name,
            direction=direction,
            action="allow",
            identity=identity,
            proto="any",
            port="any",
        )

    if endpoint.enforce.ingress:
        yield allow("localhost", "ingress", HOST)
    else:
        yield allow("default-allow", "ingress", "any")
    if not endpoint.enforce.egress:
        yield allow("default-allow", "egress", "any")


def port_prefixes(ports: PortRange) -> Iterator[tuple[int, int]]:
    """Cut a port range into the fewest aligned blocks: (first port, bits that are fixed)."""
    first, last = ports
    while first <= last:
        size = first & -first or 1 << PORT_BITS  # the largest block that may begin here
        while first + size - 1 > last:
            size >>= 1
        yield first, PORT_BITS - (size.bit_length() - 1)
        first += size


def _entries(rule_id: int, rule: Rule) -> Iterator[_Entry]:
    """Give the map entries of one rule."""
    identity = 0 if rule.identity == "any" else rule.identity
    proto = PROTO_NUMBERS[rule.proto]
    deny = rule.action == "deny"
    if rule.port == "any":
        yield _Entry(identity, proto, 0, PROTO_BITS if proto else 0, deny, rule_id)
        return
    first, _, last = rule.port.partition("-")
    for port, bits in port_prefixes(PortRange(int(first), int(last or first))):
        yield _Entry(identity, proto, port, PROTO_BITS + bits, deny, rule_id)


def _settle(entries: Iterable[_Entry]) -> list[_Entry]:
    """Keep one entry a key, the deny if there is one, and no allow under a deny."""
    by_key: dict[tuple[int, int, int, int], _Entry] = {}
    denies: dict[int, list[_Entry]] = defaultdict(list)
    for entry in entries:
        key = (entry.identity, entry.proto, entry.port, entry.prefix_len)
        kept = by_key.setdefault(key, entry)
        if entry.deny and not kept.deny:
            by_key[key] = entry
        if entry.deny:
            denies[entry.identity].append(entry)
    return [
        entry
        for entry in by_key.values()
        if entry.deny or not any(deny.covers(entry) for deny in denies[entry.identity])
    ]


def explain(  # noqa: PLR0913 - one argument a fact of the verdict
    rules: Mapping[int, Rule],
    drop: int,
    rule_id: int,
    endpoint: str | None,
    direction: Direction | None,
    *,
    identity: int | None = None,
    proto: int | None = None,
    port: int | None = None,
) -> dict[str, object] | None:
    """Return the rule behind a verdict as JSON, None when no policy spoke.

    Args:
        rules: rule_id to rule, of the world that gave the verdict.
        drop: the drop reason, 0 = allowed.
        rule_id: of the entry that decided, 0 = none.
        endpoint: name of the endpoint whose policy spoke, None = nobody's.
        direction: of that policy.
        identity: of the other side, for the nearest rule.
        proto: IP protocol number, likewise.
        port: destination port, or ICMP type, in host order; likewise.

    Returns:
        The rule; for a default deny ``{"kind": "default-deny", "endpoint", "direction",
        "because": [rules that select the endpoint in that direction], "nearest": rule | None}``
        where ``nearest`` allows a packet that differs least from this one. A manifest's policy
        stands in ``because`` once, of kind ``selects``, whatever rules it has.
    """
    if rule_id in rules:
        return rules[rule_id].as_json()
    if drop != Drop.POLICY_DENIED or endpoint is None or direction is None:
        return None
    selecting = _selecting(rules, endpoint, direction)
    scored = [
        (_likeness(rule, identity, proto, port), -position, rule)
        for position, rule in enumerate(selecting)
        if rule.kind == "rule" and rule.action == "allow"
    ]
    best = max(scored, key=lambda row: row[:2], default=None)
    return {
        "kind": "default-deny",
        "endpoint": endpoint,
        "direction": direction,
        "because": [rule.as_json() for rule in selecting if rule.kind != "rule" or not rule.policy],
        "nearest": best[2].as_json() if best and best[0] else None,
    }


def explain_event(world: World, event: Event) -> dict[str, object] | None:
    """Return the rule behind an event of the datapath, as ``explain`` does."""
    ingress = event.dir == DIRECTIONS["ingress"]
    return explain(
        world.rules,
        -event.verdict if event.type == _VERDICT_EVENT else event.subtype,
        event.rule_id,
        world.names.get(event.policy_endpoint),
        next((name for name, code in DIRECTIONS.items() if code == event.dir), None),
        identity=event.src_identity if ingress else event.dst_identity,
        proto=event.proto,
        port=event.dst_port,
    )


class _RuleBook(dict[int, Rule]):
    """Rules by id that also know which of them speak of an endpoint and direction."""

    def __init__(self, rules: Iterable[tuple[int, Rule]]) -> None:
        super().__init__(rules)
        self.selecting: dict[tuple[str, Direction], list[Rule]] = defaultdict(list)
        for rule in self.values():
            self.selecting[rule.endpoint, rule.direction].append(rule)


def _selecting(rules: Mapping[int, Rule], endpoint: str, direction: Direction) -> list[Rule]:
    """Return the rules of an endpoint and direction in their order."""
    book = rules if isinstance(rules, _RuleBook) else _RuleBook(rules.items())
    return book.selecting.get((endpoint, direction), [])


def _likeness(rule: Rule, identity: int | None, proto: int | None, port: int | None) -> int:
    """Count what of the packet the rule allows: identity, protocol and port."""
    first, _, last = rule.port.partition("-")
    port_fits = rule.port == "any" or (
        port is not None and int(first) <= port <= int(last or first)
    )
    proto_fits = rule.proto == "any" or PROTO_NUMBERS[rule.proto] == proto
    return (rule.identity in ("any", identity)) + proto_fits + (proto_fits and port_fits)
