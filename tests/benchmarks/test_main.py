"""benchmarks/__main__.py: what is asked for, what is said, an ended run keeps its lines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.beds import BEDS
from benchmarks.lines import load
from benchmarks.rows import QUICK_ROWS, ROWS


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> argparse.Namespace:
    """Read a command line."""
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    return command.arguments()


def test_everything_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rounds of five seconds, all rows on all beds, into the tree."""
    args = parsed(monkeypatch)
    assert (args.rounds, args.seconds) == (5, 5)
    assert (args.rows, args.beds, args.stages) == (list(ROWS), list(BEDS), list(command.STAGES))
    assert args.docs.name == "docs"
    assert args.results.name == "results"


def test_quick_is_less_and_stays_out_of_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of row is in it; a choice of rows is kept."""
    args = parsed(monkeypatch, "--quick")
    assert args.rows == list(QUICK_ROWS)
    assert {row.split("-")[0] for row in args.rows} == {row.split("-")[0] for row in ROWS}
    assert args.docs == args.results == command.ROOT / ".build/bench"
    assert parsed(monkeypatch, "--quick", "--rows", "tcp-16").rows == ["tcp-16"]


def test_a_wrong_name_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error lists the names there are."""
    with pytest.raises(SystemExit) as error:
        parsed(monkeypatch, "--beds", "kernel,vpp")
    assert error.value.code == 2
    assert "no vpp; there are kernel, fwd" in capsys.readouterr().err


def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root there is no bed, and each one has a line that says so."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    lines: list[dict[str, Any]] = []
    command.rows_stage(parsed(monkeypatch, "--rows", "tcp-1"), Path("udp"), lines)
    missing = {line["bed"]: line["text"] for line in lines if line["remark"] == "missing"}
    assert set(missing) == set(BEDS)
    assert "root" in missing["kernel"]
    (left,) = (line for line in lines if line["remark"] == "left-out")
    assert "tcp-16" in left["text"]


def test_an_ended_run_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C after half an hour must not cost half an hour."""

    def ended(_: argparse.Namespace, lines: list[dict[str, Any]]) -> None:
        lines.append({"row": "core", "metric": "new", "title": "first packet", "unit": "ns", "n": 1,
                      "of": "flows", "count": 1000,
                      "min": 5, "median": 5, "max": 5})  # fmt: skip
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", ended)
    monkeypatch.setattr(command, "clean_up_after_others", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    folder = str(tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--results", folder, "--docs", folder])
    assert command.main() == 130
    (results,) = tmp_path.glob("*.jsonl")
    first, last = load(results)
    assert (first["median"], last["remark"]) == (5, "left-out")
    assert "ended early" in (tmp_path / "benchmarks.md").read_text()
