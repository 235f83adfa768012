"""csrc/tables/policy.c: the choice of datapath reference 5.3 [C], row by row and against a twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.model.rows import PolicyRow
from tests.csrc.internal import internal
from tests.csrc.tables.region import Region, dump, policy_c, policy_row
from tests.models.policy import PolicyModel, PolicyQuery, PolicyVerdict

INGRESS, EGRESS = 1, 2
TCP, UDP, ICMP = 6, 17, 1
NONE, L3_ONLY, L3_L4, L4_ONLY, ALL, L3_PROTO, PROTO_ONLY = range(7)
DENIED, DENY = 133, 181
NO_ENTRY = 2**32 - 1


class Policy:
    """The table under test, spoken to in Python values."""

    def __init__(self, cap: int, seed: int = 1) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("policy_table", self.lib.policy_size(cap))
        self.table = self.region.table
        self.lib.policy_init(self.table, cap, seed)

    def upsert(self, row: PolicyRow) -> str:
        """Return the error text, empty when the row was written."""
        error = self.ffi.new("struct fwd_error *")
        result = self.lib.policy_upsert(self.table, policy_c(row), error)
        assert (result == 0) == (error.code == 0)
        return self.ffi.string(error.message).decode()

    def delete(self, row: PolicyRow) -> bool:
        """Remove the row with this row's key."""
        return bool(self.lib.policy_delete(self.table, policy_c(row)))

    def raw_lookup(self, query: PolicyQuery) -> Any:
        """Return ``struct policy_result``."""
        key = {name: int(getattr(query, name)) for name in PolicyQuery.__dataclass_fields__}
        return self.lib.policy_lookup(self.table, self.ffi.new("struct policy_key *", key))

    def lookup(self, query: PolicyQuery) -> PolicyVerdict:
        """Return the verdict with the row that decided."""
        result = self.raw_lookup(query)
        if result.entry == NO_ENTRY:
            assert result.rule_id == 0
            return PolicyVerdict(result.drop, result.match, None)
        row = self.row(result.entry)
        assert row.rule_id == result.rule_id
        return PolicyVerdict(result.drop, result.match, row)

    def row(self, entry: int) -> PolicyRow:
        """Return the row at an index."""
        row = self.ffi.new("struct fwd_policy_row *")
        self.lib.policy_row(self.table, entry, row)
        return policy_row(row)

    def rows(self) -> list[PolicyRow]:
        """Return the whole table."""
        return [policy_row(r) for r in dump(self.lib.policy_dump, self.table, "fwd_policy_row")]

    def stats(self) -> Any:
        """Return ``struct fwd_table_stats``."""
        stats = self.ffi.new("struct fwd_table_stats *")
        self.lib.policy_stats(self.table, stats)
        return stats


def entry(
    identity: int, proto: int, ports: str, action: str, *, rule: int = 1, direction: int = INGRESS
) -> PolicyRow:
    """Return a row of endpoint 7; ``ports`` is "any", "80" or "80/12" (bits of the port)."""
    port, _, bits = ports.partition("/")
    if proto == 0:
        prefix_len = 0
    elif ports == "any":
        prefix_len = 8
    else:
        prefix_len = 8 + int(bits or 16)
    number = 0 if port == "any" else int(port)
    return PolicyRow(7, direction, identity, proto, number, prefix_len, action == "deny", rule)


@dataclass(frozen=True)
class Case:
    """Entries (rule ids count from 1), a packet to endpoint 7, and what must come out."""

    name: str
    entries: list[tuple[int, int, str, str]]
    packet: tuple[int, int, int]
    drop: int
    rule: int
    match: int
    l3_l4: bool = True


WEB = (25002, TCP, 80)
# fmt: off
CASES = [
    # no entry, and one entry of each kind
    Case("no entry", [], WEB, DENIED, 0, NONE),
    Case("L3-L4", [(25002, TCP, "80", "allow")], WEB, 0, 1, L3_L4),
    Case("L3-proto", [(25002, TCP, "any", "allow")], WEB, 0, 1, L3_PROTO),
    Case("L3-only", [(25002, 0, "any", "allow")], WEB, 0, 1, L3_ONLY),
    Case("L4-only", [(0, TCP, "80", "allow")], WEB, 0, 1, L4_ONLY),
    Case("proto-only", [(0, TCP, "any", "allow")], WEB, 0, 1, PROTO_ONLY),
    Case("all", [(0, 0, "any", "allow")], WEB, 0, 1, ALL),
    Case("deny L3-L4", [(25002, TCP, "80", "deny")], WEB, DENY, 1, L3_L4),
    Case("deny all", [(0, 0, "any", "deny")], WEB, DENY, 1, ALL),
    # each part of the key is exact
    Case("other identity", [(25001, TCP, "80", "allow")], WEB, DENIED, 0, NONE),
    Case("other protocol", [(25002, UDP, "80", "allow")], WEB, DENIED, 0, NONE),
    Case("other port", [(25002, TCP, "81", "allow")], WEB, DENIED, 0, NONE),
    Case("ICMP type", [(0, ICMP, "8", "allow")], (2, ICMP, 8), 0, 1, L4_ONLY),
    # L3 deny wins at once, whatever L4-only says
    Case(
        "L3 deny, longer L4-only allow",
        [(25002, 0, "any", "deny"), (0, TCP, "80", "allow")], WEB, DENY, 1, L3_ONLY,
    ),
    Case(
        "L3 deny, longer L4-only deny",
        [(25002, 0, "any", "deny"), (0, TCP, "80", "deny")], WEB, DENY, 1, L3_ONLY,
    ),
    # L4-only deny beats any L3 allow
    Case(
        "L4-only deny, longer L3 allow",
        [(25002, TCP, "80", "allow"), (0, 0, "any", "deny")], WEB, DENY, 2, ALL,
    ),
    Case(
        "L4-only deny, equal L3 allow",
        [(25002, TCP, "80", "allow"), (0, TCP, "80", "deny")], WEB, DENY, 2, L4_ONLY,
    ),
    # both allow: the longer prefix, L3 when equal
    Case(
        "L4-only longer",
        [(25002, 0, "any", "allow"), (0, TCP, "80", "allow")], WEB, 0, 2, L4_ONLY,
    ),
    Case(
        "L4-only longer than L3-proto",
        [(25002, TCP, "any", "allow"), (0, TCP, "0/1", "allow")], WEB, 0, 2, L4_ONLY,
    ),
    Case(
        "L3 longer",
        [(25002, TCP, "80", "allow"), (0, TCP, "any", "allow")], WEB, 0, 1, L3_L4,
    ),
    Case(
        "equal: L3",
        [(25002, TCP, "80", "allow"), (0, TCP, "80", "allow")], WEB, 0, 1, L3_L4,
    ),
    Case(
        "equal: L3-only",
        [(25002, 0, "any", "allow"), (0, 0, "any", "allow")], WEB, 0, 1, L3_ONLY,
    ),
    # within one identity the longest prefix alone speaks: the compiler removes what a deny covers
    Case(
        "longer allow inside an L3 deny",
        [(25002, TCP, "80", "allow"), (25002, 0, "any", "deny")], WEB, 0, 1, L3_L4,
    ),
    Case(
        "longer deny inside an L3 allow",
        [(25002, 0, "any", "allow"), (25002, TCP, "80", "deny")], WEB, DENY, 2, L3_L4,
    ),
    # port prefixes
    Case("range, first", [(0, UDP, "8080/12", "allow")], (2, UDP, 8080), 0, 1, L4_ONLY),
    Case("range, last", [(0, UDP, "8080/12", "allow")], (2, UDP, 8095), 0, 1, L4_ONLY),
    Case("range, below", [(0, UDP, "8080/12", "allow")], (2, UDP, 8079), DENIED, 0, NONE),
    Case("range, above", [(0, UDP, "8080/12", "allow")], (2, UDP, 8096), DENIED, 0, NONE),
    Case("half of all ports", [(0, UDP, "32768/1", "allow")], (2, UDP, 65535), 0, 1, L4_ONLY),
    Case(
        "port 0 of a range is not any", [(0, UDP, "0/1", "allow")], (2, UDP, 32768), DENIED, 0, NONE
    ),
    Case(
        "one port denied in an allowed range",
        [(0, UDP, "8080/12", "allow"), (0, UDP, "8083", "deny")], (2, UDP, 8083), DENY, 2, L4_ONLY,
    ),
    Case(
        "its neighbour",
        [(0, UDP, "8080/12", "allow"), (0, UDP, "8083", "deny")], (2, UDP, 8084), 0, 1, L4_ONLY,
    ),
    Case(
        "range of the identity, one port for all",
        [(25002, TCP, "80/12", "allow"), (0, TCP, "80", "allow")], WEB, 0, 2, L4_ONLY,
    ),
    # identity 0 asks once, and what it finds is L4-only
    Case("unknown identity", [(0, TCP, "80", "allow")], (0, TCP, 80), 0, 1, L4_ONLY),
    Case("unknown identity, deny", [(0, TCP, "80", "deny")], (0, TCP, 80), DENY, 1, L4_ONLY),
    Case("unknown identity, all", [(0, 0, "any", "allow")], (0, TCP, 80), 0, 1, ALL),
    Case("unknown identity, none", [(25002, 0, "any", "allow")], (0, TCP, 80), DENIED, 0, NONE),
    # an untracked fragment knows neither protocol nor port
    Case("fragment, L3-only", [(25002, 0, "any", "allow")], WEB, 0, 1, L3_ONLY, l3_l4=False),
    Case("fragment, all", [(0, 0, "any", "allow")], WEB, 0, 1, ALL, l3_l4=False),
    Case("fragment, L4", [(25002, TCP, "80", "allow")], WEB, DENIED, 0, NONE, l3_l4=False),
    Case("fragment, proto", [(0, TCP, "any", "allow")], WEB, DENIED, 0, NONE, l3_l4=False),
    Case(
        "fragment passes by an L4 deny",
        [(25002, TCP, "80", "deny"), (25002, 0, "any", "allow")], WEB, 0, 2, L3_ONLY, l3_l4=False,
    ),
    Case(
        "fragment, L4-only all denied",
        [(25002, 0, "any", "allow"), (0, 0, "any", "deny")], WEB, DENY, 2, ALL, l3_l4=False,
    ),
]
# fmt: on


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_policy_lookup_row(case: Case) -> None:
    """One line of 5.3 [C]: the verdict, the rule that decided and the match type."""
    table, model = Policy(16), PolicyModel(16)
    for rule, (identity, proto, ports, action) in enumerate(case.entries, 1):
        row = entry(identity, proto, ports, action, rule=rule)
        assert table.upsert(row) == ""
        model.upsert(row)
    identity, proto, port = case.packet
    query = PolicyQuery(7, INGRESS, identity, proto, port, l3_l4=case.l3_l4)
    verdict = table.lookup(query)
    rule = verdict.row.rule_id if verdict.row else 0
    assert (verdict.drop, rule, verdict.match) == (case.drop, case.rule, case.match)
    assert verdict == model.lookup(query)
    for other in (PolicyQuery(7, EGRESS, *case.packet), PolicyQuery(8, INGRESS, *case.packet)):
        assert table.lookup(other).drop == DENIED


identities = st.sampled_from([0, 2, 25002, 0x01000001])
protos = st.sampled_from([TCP, UDP])
port_numbers = st.sampled_from([0, 1, 79, 80, 81, 8080, 8083, 32768, 65535]) | st.integers(0, 65535)


@st.composite
def policy_rows(draw: st.DrawFn) -> PolicyRow:
    """Rows of two endpoints whose keys overlap often."""
    prefix_len = draw(st.sampled_from([0, 8, 9, 12, 20, 24, 24]))
    mask = 0xFFFF << (24 - prefix_len) & 0xFFFF if prefix_len > 8 else 0
    return PolicyRow(
        lxc_id=draw(st.sampled_from([7, 65535])),
        dir=draw(st.sampled_from([INGRESS, EGRESS])),
        identity=draw(identities),
        proto=draw(protos) if prefix_len else 0,
        port=draw(port_numbers) & mask,
        prefix_len=prefix_len,
        deny=draw(st.booleans()),
        rule_id=draw(st.integers(1, 2**32 - 1)),
    )


operations = st.sampled_from(["upsert", "upsert", "delete"])
queries = st.builds(
    PolicyQuery,
    st.sampled_from([7, 65535]),
    st.sampled_from([INGRESS, EGRESS]),
    identities,
    protos,
    port_numbers,
    l3_l4=st.sampled_from([True, True, True, False]),
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(operations, policy_rows()), max_size=30),
    st.lists(queries, max_size=10),
    st.integers(0, 2**64 - 1),
)
def test_policy_decides_as_the_twin(
    todo: list[tuple[str, PolicyRow]], asked: list[PolicyQuery], seed: int
) -> None:
    """Any sequence of writes, with a table that gets full, decides as the twin does."""
    table, model = Policy(cap=12, seed=seed), PolicyModel(cap=12)
    for what, row in todo:
        if what == "upsert":
            assert (table.upsert(row) == "") == model.upsert(row)
        else:
            known = min(model.rows.values(), key=str, default=row)
            gone = known if row.deny else row
            assert table.delete(gone) == model.delete(gone)
        near = PolicyQuery(row.lxc_id, row.dir, row.identity, row.proto or TCP, row.port)
        assert table.lookup(near) == model.lookup(near)
    for query in asked:
        assert table.lookup(query) == model.lookup(query)
    assert sorted(table.rows(), key=str) == sorted(model.rows.values(), key=str)
    assert table.stats().count == len(model.rows)
    assert table.region.guards_hold()


def test_policy_every_port_range_is_met_exactly() -> None:
    """For each prefix length of a port, the first and last port match and their neighbours not."""
    for bits in range(1, 17):
        span = 1 << (16 - bits)
        first = 0xA5A5 & ~(span - 1) & 0xFFFF
        table = Policy(4)
        table.upsert(entry(0, TCP, f"{first}/{bits}", "allow"))
        for port, drop in [
            (first, 0),
            (first + span - 1, 0),
            (first - 1, DENIED),
            (first + span, DENIED),
        ]:
            if 0 <= port <= 65535:
                found = table.lookup(PolicyQuery(7, INGRESS, 2, TCP, port))
                assert found.drop == drop, (bits, port)


def test_policy_counts_by_entry_and_keeps_the_counters_on_update() -> None:
    """Packets and bytes go to the entry that decided; a rewrite of its rule does not reset them."""
    table = Policy(4)
    table.upsert(entry(0, 0, "any", "allow", rule=5))
    table.upsert(entry(0, TCP, "80", "allow", rule=6))
    for length in (60, 1500):
        result = table.raw_lookup(PolicyQuery(7, INGRESS, *WEB))
        table.lib.policy_count(table.table, result.entry, length)
    table.lib.policy_count(table.table, NO_ENTRY, 1000)
    table.upsert(entry(0, TCP, "80", "deny", rule=9))
    counted = {row.rule_id: (row.packets, row.bytes) for row in table.rows()}
    assert counted == {5: (0, 0), 9: (2, 1560)}
    table.delete(entry(0, TCP, "80", "deny"))
    table.upsert(entry(0, TCP, "80", "allow", rule=10))
    assert {row.rule_id: row.packets for row in table.rows()} == {5: 0, 10: 0}


def test_policy_row_of_no_entry_is_zero() -> None:
    """Whatever index is asked for, only an entry of the table is read."""
    table = Policy(2)
    table.upsert(entry(0, 0, "any", "allow"))
    for index in (NO_ENTRY, 1, 2):
        assert table.row(index) == PolicyRow(0, 0, 0, 0, 0, 0, deny=False, rule_id=0)


def test_policy_removal_of_the_any_entry_leaves_its_group() -> None:
    """When an identity's entry without protocol goes, its others stay and speak alone."""
    table = Policy(4)
    table.upsert(entry(0, 0, "any", "allow", rule=1))
    table.upsert(entry(0, TCP, "80", "allow", rule=2))
    assert table.delete(entry(0, 0, "any", "allow"))
    assert table.lookup(PolicyQuery(7, INGRESS, *WEB)).match == L4_ONLY
    assert table.lookup(PolicyQuery(7, INGRESS, 2, TCP, 81)).drop == DENIED


def test_policy_groups_leave_with_their_last_entry() -> None:
    """However often entries are rewritten, a small table serves many identities in turn."""
    table = Policy(2)
    for identity in range(1, 50):
        row = entry(identity, TCP, "80", "allow", rule=identity)
        for _ in range(3):
            assert table.upsert(row) == ""
        assert table.lookup(PolicyQuery(7, INGRESS, identity, TCP, 80)).row == row
        assert table.delete(row)
    assert table.region.guards_hold()


INVALID = [
    (PolicyRow(0, 1, 0, 0, 0, 0, False, 1), "endpoint ids"),
    (PolicyRow(7, 0, 0, 0, 0, 0, False, 1), "neither ingress nor egress"),
    (PolicyRow(7, 3, 0, 0, 0, 0, False, 1), "neither ingress nor egress"),
    (PolicyRow(7, 1, 0, 6, 0, 7, False, 1), "neither 0 nor 8 to 24"),
    (PolicyRow(7, 1, 0, 6, 80, 25, False, 1), "neither 0 nor 8 to 24"),
    (PolicyRow(7, 1, 0, 6, 0, 0, False, 1), "go together"),
    (PolicyRow(7, 1, 0, 0, 0, 8, False, 1), "go together"),
    (PolicyRow(7, 1, 0, 6, 80, 8, False, 1), "behind the prefix"),
    (PolicyRow(7, 1, 0, 6, 8081, 20, False, 1), "behind the prefix"),
    (PolicyRow(7, 1, 0, 6, 80, 24, False, 0), "no rule"),
]


@pytest.mark.parametrize(("row", "problem"), INVALID)
def test_policy_refuses(row: PolicyRow, problem: str) -> None:
    """A row that means nothing is named and not written."""
    table = Policy(4)
    assert problem in table.upsert(row)
    assert table.stats().count == 0


def test_policy_full_table_refuses_and_counts() -> None:
    """A full table names its capacity, counts the refusal and still takes updates."""
    table = Policy(2)
    assert table.upsert(entry(0, TCP, "80", "allow")) == ""
    assert table.upsert(entry(0, TCP, "81", "allow")) == ""
    assert "full with 2 entries" in table.upsert(entry(0, TCP, "82", "allow"))
    assert table.upsert(entry(0, TCP, "81", "deny")) == ""
    assert table.stats().failures == 1


def test_policy_ten_thousand_rules_of_one_endpoint() -> None:
    """Every one of 10 000 rules is found, and is gone after its removal."""
    table = Policy(10_000)
    rows = [entry(256 + n // 4, TCP, str(80 + n % 4), "allow", rule=n + 1) for n in range(10_000)]
    for row in rows:
        assert table.upsert(row) == ""
    for row in rows[::97]:
        query = PolicyQuery(7, INGRESS, row.identity, TCP, row.port)
        assert table.lookup(query).row == row
        assert table.delete(row)
        assert table.lookup(query).drop == DENIED
