"""A row passes, fails with its error's text, or ends the run."""

from __future__ import annotations

import json

import pytest

from tests.vm.report import RESULTS, TABLE, Abandoned, Report


def test_rows_are_kept_as_they_come(tmp_path, capsys):
    """Failures too, and the run goes on after them."""
    report = Report(tmp_path, {"commit": "c"})
    with report.check("a", "works") as row:
        row.figure = "5 Mbit/s"
    with report.check("a", "fails"):
        raise OSError("no\nway")
    lines = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert [(one["ok"], one["figure"], one["commit"]) for one in lines] == [
        (True, "5 Mbit/s", "c"),
        (False, "no way", "c"),
    ]
    assert [row.what for row in report.failed()] == ["fails"]
    table = report.finish()
    assert (tmp_path / TABLE).read_text() == table == capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()] == ["pass", "FAIL"]


def test_vital_row_ends_the_run(tmp_path):
    """What comes after it would say nothing."""
    report = Report(tmp_path, {})
    with pytest.raises(Abandoned), report.check("a", "boots", vital=True):
        raise AssertionError("silent")
    assert report.failed()[0].figure == "silent"
