"""The table: one row a check, kept as JSON lines while the run goes on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Abandoned", "Report", "Row"]

RESULTS, TABLE = "results.jsonl", "table.txt"


class Abandoned(Exception):  # noqa: N818 - it ends a run, and is no error of its own
    """A check failed without which the others say nothing."""


@dataclass
class Row:
    """One check."""

    story: str
    what: str
    figure: str = ""
    """What was seen, in a few words; of a failure its first line."""
    ok: bool = False
    seconds: float = 0
    detail: dict[str, Any] = field(default_factory=dict)
    """Everything behind the figure."""


class Report:
    """Rows of one run.

    Args:
        folder: where RESULTS and TABLE go.
        context: what the figures are quoted with (benchmarks/lines.py).
    """

    def __init__(self, folder: Path, context: dict[str, Any]) -> None:
        self.rows: list[Row] = []
        self._folder = folder
        self._context = context
        (folder / RESULTS).write_text("")

    @contextlib.contextmanager
    def check(self, story: str, what: str, vital: bool = False) -> Iterator[Row]:
        """Make a row; it fails by the exception that leaves the block, the run goes on.

        Raises:
            Abandoned: a vital one failed.
        """
        row = Row(story, what)
        began = time.monotonic()
        try:
            yield row
            row.ok = True
        except (
            AssertionError,
            LookupError,
            OSError,
            ValueError,
            subprocess.SubprocessError,
        ) as error:
            text = str(error).strip() or type(error).__name__
            row.figure = " ".join(text.splitlines()[:3])[:300]
            row.detail["error"] = text
        row.seconds = round(time.monotonic() - began, 1)
        self.rows.append(row)
        print(_line(row), flush=True)
        with (self._folder / RESULTS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(self._context | asdict(row)) + "\n")
        if vital and not row.ok:
            raise Abandoned(f"{row.story}: {row.what}")

    def failed(self) -> list[Row]:
        """The rows that did not pass."""
        return [row for row in self.rows if not row.ok]

    def finish(self) -> str:
        """Write TABLE; returns it."""
        text = "".join(f"{_line(row)}\n" for row in self.rows)
        (self._folder / TABLE).write_text(text)
        return text


def _line(row: Row) -> str:
    mark = "pass" if row.ok else "FAIL"
    return f"{mark}  {row.story:9} {row.what:58} {row.seconds:6.1f} s  {row.figure}"
