"""Lines of several runs as one set: the newest of each figure, its commits, what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.beds import BEDS
from benchmarks.panels import PANELS
from benchmarks.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["missing", "newest", "sources"]

_STAGES = {"dump": "rr-dump", "pods": "pods", "core": "core", "policy": "policy"}
"""The row of each stage but `rows`."""
_ENDED = "the run was ended early"
_OF_ONE_RUN = ("rows not asked for", "stages not asked for")
"""Remarks that say nothing of a set of runs: ``missing`` tells what the whole set lacks."""


def newest(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the last line of each figure, and every remark that no later run has answered."""
    figures: dict[tuple[Any, ...], dict[str, Any]] = {}
    remarks = []
    for line in lines:
        if "remark" in line:
            remarks.append(line)
        else:
            figures[_key(line)] = line
    kept = list(figures.values())
    return [*kept, *(line for line in remarks if not _answered(line, kept))]


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    """What a line measures; how many entries a full table held is no part of it."""
    names = ("row", "metric", "bed", "count", "pods")
    place = tuple(line.get(name) for name in names)
    return (*place, line.get("title")) if line.get("row") == "policy" else place


def _answered(remark: dict[str, Any], figures: list[dict[str, Any]]) -> bool:
    """Whether a later run has figures where this remark says why there are none."""
    if remark["text"].startswith(_OF_ONE_RUN):
        return True
    place = {key: remark[key] for key in ("row", "bed") if key in remark}
    if place.get("row") in _STAGES.values():
        place.pop("bed", None)  # its lines name what was compared there, or no bed
    return (bool(place) or remark["text"] == _ENDED) and any(
        line.get("at", "") > remark.get("at", "")
        and all(line.get(key) == value for key, value in place.items())
        for line in figures
    )


def sources(lines: Iterable[dict[str, Any]]) -> str:
    """Say of which commits and days figures are, oldest run first."""
    runs = sorted(
        {(str(line.get("at", ""))[:16], str(line.get("commit", "none"))) for line in lines}
    )
    told = dict.fromkeys(f"{commit} ({at[:10] or 'no date'})" for at, commit in runs)
    return f"Figures of commit{'s' if len(told) > 1 else ''} {', '.join(told)}."


def missing(lines: list[dict[str, Any]]) -> list[str]:
    """Name stages, rows of beds and panels of the plot that have no figure."""
    figures = [line for line in lines if "median" in line]
    rows = {line.get("row") for line in figures}
    found = [f"stage {name}: no figures" for name, row in _STAGES.items() if row not in rows]
    have = {(line.get("row"), line.get("bed")) for line in figures}
    for name, bed in BEDS.items():
        could = [row.key for row in ROWS.values() if row.can_run(bed)]
        absent = [key for key in could if (key, name) not in have]
        if absent and len(absent) == len(could):
            found.append(f"bed {name}: no row")
        elif absent:
            found.append(f"bed {name}: no figures of {', '.join(absent)}")
    found += [f"plot of costs: {panel.title}" for panel in PANELS if not panel.series(lines)]
    return found
