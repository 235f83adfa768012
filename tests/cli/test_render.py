"""Tables and JSON: literal output, and awk's view of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwd.cli.render import duration, fields, json_array, paint, table


def test_table_is_aligned():
    """Upper-case headers, two spaces at least, "-" for nothing, no trailing blanks."""
    rows = [[2825, "default/curl", ["10.244.0.108", "fd00::108"], None], [7, "x", [], ""]]
    assert list(table(["id", "name", "addresses", "ifname"], rows)) == [
        "ID    NAME          ADDRESSES               IFNAME",
        "2825  default/curl  10.244.0.108,fd00::108  -",
        "7     x             -                       -",
    ]


def test_table_as_cilium_prints_maps():
    """Map dumps keep their headers' case, three spaces, and empty cells empty."""
    lines = table(["Key", "Value", "State", "Error"], [["a", "b", "sync", ""]], gap=3, upper=False)
    assert list(lines) == ["Key   Value   State   Error", "a     b       sync"]


def test_table_without_rows_is_its_header():
    """An empty list is no error."""
    assert list(table(["ID", "NAME"], [])) == ["ID  NAME"]


def test_table_streams():
    """A million rows are not collected first; wide late cells still keep their columns apart."""
    seen = 0

    def endless() -> Iterator[list[str]]:
        nonlocal seen
        while True:
            seen += 1
            yield ["a" if seen < 2000 else "a" * 50, "b"]

    lines = table(["X", "Y"], endless())
    for _ in range(1500):
        next(lines)
    assert seen < 1600
    for _ in range(600):
        last = next(lines)
    assert last == "a" * 50 + "  b"


@given(st.lists(st.lists(st.from_regex(r"[a-z0-9./:]{1,20}", fullmatch=True),
                         min_size=3, max_size=3), max_size=20))  # fmt: skip
def test_table_survives_awk(rows: list[list[str]]):
    """Cells without blanks come back by splitting at blanks."""
    lines = list(table(["A", "B", "C"], rows))
    assert [line.split() for line in lines[1:]] == rows


def test_fields_share_a_column():
    """Names end in a colon, values start in one column."""
    assert list(fields([("ID", 7), ("Node MAC", "")])) == ["ID:        7", "Node MAC:  -"]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(), max_size=3), max_size=8))
def test_json_array_parses(rows: list[dict[str, int]]):
    """What is written row by row is one array."""
    assert json.loads("\n".join(json_array(rows))) == rows


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (192, "3m12s"), (7500, "2h05m"), (273_600, "3d04h")],
)
def test_duration(seconds: int, text: str):
    """Two units at most."""
    assert duration(seconds) == text


@pytest.mark.parametrize(("tty", "no_color", "coloured"),
                         [(True, "", True), (True, "1", False), (False, "", False)])  # fmt: skip
def test_paint_only_where_a_person_looks(
    monkeypatch: pytest.MonkeyPatch, tty: bool, no_color: str, coloured: bool
):
    """Colour needs a terminal and no NO_COLOR."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    monkeypatch.setenv("NO_COLOR", no_color)
    assert paint("drop", "red") == ("\x1b[31mdrop\x1b[0m" if coloured else "drop")
