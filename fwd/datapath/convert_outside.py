"""Rows that only traffic from outside is asked about, to the structs of csrc/abi.h and back."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from fwd.datapath.convert import addr_bytes, addr_py
from fwd.model.rows import Network, SourceRangeRow


def source_range_c(ffi: Any, row: SourceRangeRow) -> Any:
    """A ``struct fwd_source_range_row *``."""
    out = ffi.new("struct fwd_source_range_row *")
    out.prefix.b = addr_bytes(row.prefix.network_address)
    out.rev_nat_id = row.rev_nat_id
    out.family, out.prefix_len = row.prefix.version, row.prefix.prefixlen
    return out


def source_range_py(ffi: Any, row: Any) -> SourceRangeRow:
    """SourceRangeRow of a ``struct fwd_source_range_row``."""
    kind = IPv4Network if int(row.family) == 4 else IPv6Network
    prefix: Network = kind((addr_py(ffi, row.prefix), int(row.prefix_len)))
    return SourceRangeRow(int(row.rev_nat_id), prefix)
