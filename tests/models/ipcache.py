"""Slow twin of csrc/tables/ipcache.c: a dict of prefixes, searched by looking at every one."""

from __future__ import annotations

from dataclasses import dataclass, field

from fwd.model.rows import Address, IpcacheRow, Network

__all__ = ["IpcacheModel"]


@dataclass
class IpcacheModel:
    """Prefix to row; ``cap`` prefixes at most."""

    cap: int
    rows: dict[Network, IpcacheRow] = field(default_factory=dict)

    def upsert(self, row: IpcacheRow) -> bool:
        """Store the row; False when it is a new one and the table is full."""
        if row.prefix not in self.rows and len(self.rows) == self.cap:
            return False
        self.rows[row.prefix] = row
        return True

    def delete(self, prefix: Network) -> bool:
        """Remove exactly this prefix; False when there was none."""
        return self.rows.pop(prefix, None) is not None

    def lookup(self, addr: Address) -> IpcacheRow | None:
        """Return the row of the longest prefix of the address's own family that holds it."""
        holding = [
            row
            for prefix, row in self.rows.items()
            if prefix.version == addr.version and addr in prefix
        ]
        return max(holding, key=lambda row: row.prefix.prefixlen, default=None)
