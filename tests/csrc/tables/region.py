"""Memory for one table outside an arena, and rows in and out of C structs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_network
from typing import Any

from fwd.model.rows import Address, IpcacheRow, Network, PolicyRow
from tests.csrc.internal import internal

__all__ = [
    "Region",
    "address",
    "dump",
    "fill_address",
    "ipcache_c",
    "ipcache_row",
    "policy_c",
    "policy_row",
]

MAPPED = bytes(10) + b"\xff\xff"
PAINT = b"\xa5"
GUARD = 4096


class Region:
    """``size`` bytes for a ``struct <table>``, on a cache line, between two guards."""

    def __init__(self, table: str, size: int) -> None:
        ffi, _ = internal()
        self.size = size
        self._memory = ffi.new("uint8_t[]", size + 64 + 2 * GUARD)
        first = int(ffi.cast("uintptr_t", self._memory)) + GUARD
        self._start = GUARD + -first % 64
        ffi.memmove(self._memory, PAINT * len(self._memory), len(self._memory))
        self.table = ffi.cast(f"struct {table} *", self._memory + self._start)

    @property
    def content(self) -> bytes:
        """The table's bytes."""
        ffi, _ = internal()
        return bytes(ffi.buffer(self._memory + self._start, self.size))

    @content.setter
    def content(self, content: bytes) -> None:
        ffi, _ = internal()
        ffi.memmove(self._memory + self._start, content, self.size)

    def guards_hold(self) -> bool:
        """Whether nobody wrote beside the table."""
        ffi, _ = internal()
        memory = bytes(ffi.buffer(self._memory))
        outside = memory[: self._start] + memory[self._start + self.size :]
        return outside == PAINT * len(outside)


def fill_address(target: Any, addr: Address) -> None:
    """Write an address into a ``struct fwd_addr``, IPv4 as mapped."""
    packed = addr.packed
    target.b = MAPPED + packed if len(packed) == 4 else packed


def address(source: Any) -> Address:
    """Read a ``struct fwd_addr``."""
    packed = bytes(source.b)
    return IPv4Address(packed[12:]) if packed.startswith(MAPPED) else IPv6Address(packed)


def ipcache_c(row: IpcacheRow) -> Any:
    """Return the row as ``struct fwd_ipcache_row *``."""
    ffi, _ = internal()
    out = ffi.new("struct fwd_ipcache_row *")
    fill_address(out.prefix, row.prefix.network_address)
    if row.tunnel_endpoint is not None:
        fill_address(out.tunnel_endpoint, row.tunnel_endpoint)
    out.identity = row.identity
    out.family = row.prefix.version
    out.prefix_len = row.prefix.prefixlen
    out.flags = int(row.skip_tunnel)
    return out


def ipcache_row(source: Any) -> IpcacheRow:
    """Read a row or an entry; its has-tunnel flag must agree with its tunnel endpoint."""
    tunnel = any(source.tunnel_endpoint.b)
    assert bool(source.flags & 2) == tunnel
    prefix: Network = ip_network(f"{address(source.prefix)}/{source.prefix_len}")
    assert prefix.version == source.family or isinstance(prefix, IPv4Network)
    return IpcacheRow(
        prefix=prefix,
        identity=source.identity,
        tunnel_endpoint=address(source.tunnel_endpoint) if tunnel else None,
        skip_tunnel=bool(source.flags & 1),
    )


POLICY_FIELDS = ("lxc_id", "dir", "identity", "proto", "port", "prefix_len", "deny", "rule_id")


def policy_c(row: PolicyRow) -> Any:
    """Return the row as ``struct fwd_policy_row *``."""
    ffi, _ = internal()
    return ffi.new(
        "struct fwd_policy_row *", {name: int(getattr(row, name)) for name in POLICY_FIELDS}
    )


def policy_row(source: Any) -> PolicyRow:
    """Read a ``struct fwd_policy_row``."""
    fields = {name: getattr(source, name) for name in POLICY_FIELDS}
    fields["deny"] = bool(source.deny)
    return PolicyRow(**fields, packets=source.packets, bytes=source.bytes)


def dump(function: Any, table: Any, row_type: str, page: int = 3) -> list[Any]:
    """Collect all rows of a table by its cursor, ``page`` at a time."""
    ffi, _ = internal()
    cursor = ffi.new("uint64_t *", 0)
    rows = []
    while True:
        buffer = ffi.new(f"struct {row_type}[]", page)
        n = function(table, cursor, buffer, page)
        rows += [ffi.new(f"struct {row_type} *", buffer[i]) for i in range(n)]
        if cursor[0] == 0:
            return rows
        assert n == page
