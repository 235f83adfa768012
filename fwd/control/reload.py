"""What a reload may not change, and what it has changed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwd.control.preflight import at_line

if TYPE_CHECKING:
    from fwd.config.schema import NodeFile
    from fwd.control.apply import Ops

__all__ = ["count_changes", "refuse_fixed"]


def refuse_fixed(old: NodeFile, new: NodeFile) -> None:
    """Raise ConfigError when the new file changes what only a restart can change."""
    fixed = (
        ("node.name", new.node.line, old.node.name, new.node.name),
        ("node.ip", new.node.line, old.node.ip, new.node.ip),
        ("tunnel.protocol", new.tunnel.line, old.tunnel.protocol, new.tunnel.protocol),
        ("tunnel.port", new.tunnel.line, old.tunnel.port, new.tunnel.port),
        ("tunnel.mtu", new.tunnel.line, old.tunnel.mtu, new.tunnel.mtu),
        ("api.socket", new.api.line, old.api.socket, new.api.socket),
        ("metrics.listen", new.metrics.line if new.metrics else 0,
         old.metrics and old.metrics.listen, new.metrics and new.metrics.listen),
    )  # fmt: skip
    for key, line, was, wanted in fixed:
        if was != wanted:
            raise at_line(
                new,
                line or new.node.line,
                f"{key}: cannot change from {was} to {wanted} while the daemon runs: restart it",
            )


def count_changes(ops: Ops) -> dict[str, dict[str, int]]:
    """Return table to rows added, changed and removed; tables that stay are left out."""
    tables: dict[str, dict[str, int]] = {}
    for op in ops.steps:
        counts = tables.setdefault(op.table, {"added": 0, "changed": 0, "removed": 0})
        kind = "removed" if op.row is None else "added" if op.before is None else "changed"
        counts[kind] += 1
    return tables
