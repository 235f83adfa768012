"""Answers as text: tables that awk can read, JSON, colour where a person looks.

Columns are left-aligned and parted by two or more spaces, headers are upper case, an empty cell
reads "-". Long tables are written as they come: the first rows decide the widths.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

__all__ = ["duration", "fields", "json_array", "json_object", "paint", "print_lines", "table"]

_WIDTH_ROWS = 1024  # rows looked at before widths are fixed: one page of the API
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2}


def table(
    headers: Sequence[str], rows: Iterable[Sequence[object]], *, gap: int = 2, upper: bool = True
) -> Iterator[str]:
    """Lay out rows under headers; a generator of lines.

    Args:
        headers: one a column.
        rows: cells in the columns' order; None and "" read "-" unless ``upper`` is off.
        gap: spaces between columns, at least.
        upper: house style; off leaves headers and empty cells as they are (Cilium's map dumps).
    """
    names = [header.upper() if upper else header for header in headers]
    cells = ([_cell(value, empty="-" if upper else "") for value in row] for row in rows)
    head = list(islice(cells, _WIDTH_ROWS))
    widths = [max(len(row[i]) for row in [names, *head]) for i in range(len(names))]
    yield _line(names, widths, gap)
    for row in head:
        yield _line(row, widths, gap)
    for row in cells:
        yield _line(row, widths, gap)


def _cell(value: object, *, empty: str) -> str:
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return empty if value is None or value == "" else str(value)


def _line(cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    padded = (cell.ljust(width) + " " * gap for cell, width in zip(cells, widths, strict=True))
    return "".join(padded).rstrip()


def fields(pairs: Iterable[tuple[str, object]]) -> Iterator[str]:
    """Lay out ``Name:  value`` lines with the values in one column."""
    rows = [(f"{name}:", _cell(value, empty="-")) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    return (f"{name.ljust(width)}  {value}" for name, value in rows)


def json_object(value: Mapping[str, Any]) -> Iterator[str]:
    """One JSON object, for people and jq."""
    yield json.dumps(value, indent=2)


def json_array(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A JSON array, one row a line, written as the rows come."""
    last: str | None = None
    yield "["
    for row in rows:
        if last is not None:
            yield f"{last},"
        last = json.dumps(row)
    if last is not None:
        yield last
    yield "]"


def print_lines(lines: Iterable[str]) -> None:
    """Write lines to stdout."""
    write = sys.stdout.write
    for line in lines:
        write(f"{line}\n")


def paint(text: str, colour: str) -> str:
    """Colour ``text`` on a terminal, unless NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def duration(seconds: int) -> str:
    """``3d04h``, ``2h05m``, ``3m12s`` or ``9s``."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02}h"
    if hours:
        return f"{hours}h{m:02}m"
    return f"{minutes}m{s:02}s" if minutes else f"{s}s"
