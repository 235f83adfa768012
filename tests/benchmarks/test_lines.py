"""benchmarks/lines.py: what a saved figure says, and that it can be read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.lines import context, figure, load, remark, save


def test_figure_has_spread_rounds_and_ratios() -> None:
    """Every round is kept, holes too, so that others can compute what they like."""
    line = figure({"row": "tcp-1"}, [1.0, None, 3.0], {"kernel": [2.0, 5.0, 4.0], "ovs": [None]})
    assert line == {
        "row": "tcp-1", "n": 2, "min": 1.0, "median": 2.0, "max": 3.0, "values": [1.0, None, 3.0],
        "ratio": {"kernel": {"n": 2, "min": 0.5, "median": 0.625, "max": 0.75}},
    }  # fmt: skip


def test_figure_without_rounds_is_none() -> None:
    """No line is written for what was not measured."""
    assert figure({"row": "tcp-1"}, [None]) is None


def test_saved_lines_carry_their_context_and_load_again(tmp_path: Path) -> None:
    """A line torn out of the file still says what it was measured on."""
    quoted = context()
    assert {"at", "commit", "kernel", "cpu", "tcp", "command"} == set(quoted)
    assert quoted["command"].startswith("python -m benchmarks")
    path = tmp_path / "deep" / "results.jsonl"
    lines = [{"row": "rr", "n": 1}, remark("missing", "not installed: fastd", bed="fastd")]
    save(path, lines, quoted)
    assert load(path) == [{**quoted, **line} for line in lines]


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    """The number of the line is in the error."""
    path = tmp_path / "results.jsonl"
    path.write_text('{"row": "rr"}\n{"row": \n')
    with pytest.raises(ValueError, match=r"results\.jsonl:2"):
        load(path)
