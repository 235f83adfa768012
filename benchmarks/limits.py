"""Judgement of a run that is no comparison: figures beside the limits they must keep."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["Row", "conclude", "zeroes"]


class Row(NamedTuple):
    """One figure."""

    name: str
    figure: str
    limit: str
    kept: bool


def zeroes(counts: Mapping[str, int]) -> list[Row]:
    """Rows of what must not happen, by name."""
    return [Row(name, str(count), "0", count == 0) for name, count in counts.items()]


def conclude(rows: Sequence[Row], result: Mapping[str, Any], out: Path | None) -> int:
    """Print the rows and what the logs complain of, and keep the result.

    Args:
        rows: the judgement.
        result: all there is to know; has ``complaints``.
        out: where it is appended as a line of JSON, if anywhere.

    Returns:
        The exit status: 1 when a limit was missed.
    """
    for name, figure, limit, kept in rows:
        print(f"{name:34} {figure:>20}  limit {limit:>10}  {'ok' if kept else 'MISSED'}")
    for line in result["complaints"]:
        print(line)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**result, "command": " ".join(sys.argv)}) + "\n")
    return 0 if all(row.kept for row in rows) else 1
