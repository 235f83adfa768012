"""csrc/tables/peer.c: remote nodes by underlay address."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.model.rows import Address, PeerRow
from tests.csrc.internal import internal
from tests.csrc.tables.region import Region, address, dump, fill_address


class Peers:
    """The table under test, spoken to in Python values."""

    def __init__(self, cap: int) -> None:
        self.ffi, self.lib = internal()
        self.region = Region("peer_table", self.lib.peer_size(cap))
        self.table = self.region.table
        self.lib.peer_init(self.table, cap, 1)

    def addr(self, addr: Address) -> Any:
        """Return the address in C."""
        out = self.ffi.new("struct fwd_addr *")
        fill_address(out, addr)
        return out

    def upsert_c(self, ip: Address, vni: int, identity: int, fixed_vni: int) -> str:
        """Return the error text, empty when the row was written."""
        row = self.ffi.new(
            "struct fwd_peer_row *", {"vni": vni, "identity": identity, "fixed_vni": fixed_vni}
        )
        fill_address(row.ip, ip)
        error = self.ffi.new("struct fwd_error *")
        result = self.lib.peer_upsert(self.table, row, error)
        assert (result == 0) == (error.code == 0)
        return self.ffi.string(error.message).decode()

    def upsert(self, row: PeerRow) -> str:
        """Return the error text, empty when the row was written."""
        return self.upsert_c(row.ip, row.vni or 0, row.identity, int(row.vni is not None))

    def lookup(self, ip: Address) -> PeerRow | None:
        """Return the peer of exactly this address."""
        found = self.lib.peer_lookup(self.table, self.addr(ip))
        return None if found == self.ffi.NULL else peer_row(found)


def peer_row(source: Any) -> PeerRow:
    """Read a ``struct fwd_peer_row``."""
    return PeerRow(address(source.ip), source.vni if source.fixed_vni else None, source.identity)


ips = st.sampled_from([ip_address(t) for t in ("192.168.0.1", "192.168.0.2", "fd00::1", "::1")])
peers = st.builds(
    PeerRow, ip=ips, vni=st.none() | st.integers(0, 2**24 - 1), identity=st.integers(0, 2**32 - 1)
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), peers), max_size=25))
def test_peer_table_is_a_dict_of_addresses(todo: list[tuple[bool, PeerRow]]) -> None:
    """Any sequence of writes leaves what a dict of three has."""
    table = Peers(cap=3)
    model: dict[Address, PeerRow] = {}
    for write, row in todo:
        if write:
            room = row.ip in model or len(model) < 3
            assert (table.upsert(row) == "") == room
            if room:
                model[row.ip] = row
        else:
            deleted = table.lib.peer_delete(table.table, table.addr(row.ip))
            assert bool(deleted) == (model.pop(row.ip, None) is not None)
    for ip in [*model, ip_address("192.168.0.1"), ip_address("192.168.0.9")]:
        assert table.lookup(ip) == model.get(ip)
    rows = [peer_row(row) for row in dump(table.lib.peer_dump, table.table, "fwd_peer_row")]
    assert {row.ip: row for row in rows} == model
    stats = table.ffi.new("struct fwd_table_stats *")
    table.lib.peer_stats(table.table, stats)
    assert (stats.cap, stats.count) == (3, len(model))
    assert table.region.guards_hold()


INVALID = [
    ("192.168.0.1", 1 << 24, 1, "24 bits"),
    ("192.168.0.1", 42, 2, "fixed_vni"),
    ("::", 42, 1, "underlay address"),
]


@pytest.mark.parametrize(("ip", "vni", "fixed_vni", "problem"), INVALID)
def test_peer_refuses(ip: str, vni: int, fixed_vni: int, problem: str) -> None:
    """A row that cannot be put on the wire is named and not written."""
    table = Peers(3)
    text = table.upsert_c(ip_address(ip), vni, 2, fixed_vni)
    assert problem in text
    assert ip in text
    assert table.lookup(ip_address(ip)) is None


def test_peer_full_table_names_its_capacity() -> None:
    """A full table refuses and says how large it is."""
    table = Peers(1)
    assert table.upsert(PeerRow(ip_address("192.168.0.1"))) == ""
    text = table.upsert(PeerRow(ip_address("192.168.0.2")))
    assert "192.168.0.2: the table is full with 1 peers" in text
