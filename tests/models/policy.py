"""Slow twin of csrc/tables/policy.c: a list of rows, each asked whether it covers the packet.

Written from the text of datapath reference 5.3 [C], without a table of prefix lengths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fwd.model.rows import PolicyRow

__all__ = ["PolicyModel", "PolicyQuery", "PolicyVerdict"]

DENIED, DENY = 133, 181


@dataclass(frozen=True)
class PolicyQuery:
    """What a packet asks; ``l3_l4`` False = an untracked fragment."""

    lxc_id: int
    dir: int
    identity: int
    proto: int
    port: int
    l3_l4: bool = True


@dataclass(frozen=True)
class PolicyVerdict:
    """``drop`` 0, 133 or 181; ``match`` as in datapath reference 8.4; ``row`` None = no entry."""

    drop: int
    match: int
    row: PolicyRow | None


@dataclass
class PolicyModel:
    """Rows by key."""

    cap: int
    rows: dict[tuple[int, ...], PolicyRow] = field(default_factory=dict)

    @staticmethod
    def key(row: PolicyRow) -> tuple[int, ...]:
        """Return what makes a row unique."""
        return (row.lxc_id, row.dir, row.identity, row.proto, row.port, row.prefix_len)

    def upsert(self, row: PolicyRow) -> bool:
        """Store the row; False when it is a new one and the table is full."""
        if self.key(row) not in self.rows and len(self.rows) == self.cap:
            return False
        self.rows[self.key(row)] = row
        return True

    def delete(self, row: PolicyRow) -> bool:
        """Remove the row with this row's key; False when there was none."""
        return self.rows.pop(self.key(row), None) is not None

    def lookup(self, query: PolicyQuery) -> PolicyVerdict:
        """Decide as 5.3 [C] says."""
        l3 = self._longest(query, query.identity) if query.identity else None
        l4_only = self._longest(query, 0)
        if l3 is not None and l3.deny:
            chosen: PolicyRow | None = l3
        elif l4_only is not None and l4_only.deny:
            chosen = l4_only
        elif l3 is not None and l4_only is not None:
            chosen = l4_only if l4_only.prefix_len > l3.prefix_len else l3
        else:
            chosen = l3 or l4_only
        if chosen is None:
            return PolicyVerdict(DENIED, 0, None)
        return PolicyVerdict(DENY if chosen.deny else 0, _match(chosen), chosen)

    def _longest(self, query: PolicyQuery, identity: int) -> PolicyRow | None:
        covering = [
            row
            for row in self.rows.values()
            if (row.lxc_id, row.dir, row.identity) == (query.lxc_id, query.dir, identity)
            and _covers(row, query)
        ]
        return max(covering, key=lambda row: row.prefix_len, default=None)


def _covers(row: PolicyRow, query: PolicyQuery) -> bool:
    if row.prefix_len == 0:
        return True
    if not query.l3_l4 or row.proto != query.proto:
        return False
    span = 1 << (24 - row.prefix_len)
    return row.port <= query.port < row.port + span if row.prefix_len > 8 else True


def _match(row: PolicyRow) -> int:
    """Return L3-only 1, L3-L4 2, L4-only 3, all 4, L3-proto 5, proto-only 6."""
    if row.prefix_len == 0:
        return 1 if row.identity else 4
    if row.prefix_len == 8:
        return 5 if row.identity else 6
    return 2 if row.identity else 3
