"""Every kind of row finds its table, by its key, there and away again."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address, ip_network

import pytest

from fwd.control.row_tables import Row, table_of
from fwd.datapath.binding import Datapath
from fwd.model.maglev import MAGLEV_SIZE
from fwd.model.rows import (
    BackendRow,
    EndpointRow,
    IpcacheRow,
    LxcRow,
    MaglevRow,
    Params,
    PeerRow,
    PolicyRow,
    ServiceRow,
    SourceRangeRow,
)

ADDR = ip_address("10.0.0.1")
ROWS: list[Row] = [
    EndpointRow(7, 300, 1, bytes(6), bytes(6)),
    LxcRow(ADDR, 7),
    IpcacheRow(ip_network("10.0.0.0/24"), 300),
    PolicyRow(7, 1, 300, 6, 80, 24, deny=False, rule_id=1),
    PeerRow(ADDR),
    ServiceRow(ADDR, 80, 6, 0, 0, 1),
    BackendRow(1, ADDR, 80, 6),
    SourceRangeRow(1, ip_network("10.0.0.0/24")),
    MaglevRow(1, (1,) * MAGLEV_SIZE),
]
KINDS = [type(row).__name__ for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=KINDS)
def test_a_row_goes_into_its_table_and_out_again(row: Row) -> None:
    """The table's count says so, and a second delete finds nothing."""
    table = table_of(row)
    sizes = {one.name: 64 for one in fields(Params) if one.type == "int"}
    with Datapath.create(Params(**sizes)) as dp:
        table.upsert(dp, row)
        assert dp.stats(table.name).count == 1
        assert table.delete(dp, row)
        assert not table.delete(dp, row)
        assert dp.stats(table.name).count == 0


@pytest.mark.parametrize("row", ROWS, ids=KINDS)
def test_a_key_names_one_row_of_a_table(row: Row) -> None:
    """It can be a dict's key and is the same for the same row."""
    key = table_of(row).key
    assert {key(row): row}[key(row)] is row
