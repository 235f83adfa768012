"""The two plots: every bed against the kernel's, and what more flows, prefixes and pods cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.beds import BEDS, REFERENCE, SAME_NODE_REFERENCE
from benchmarks.panels import PANELS
from benchmarks.rows import ROWS

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.panels import Panel

__all__ = ["bars", "bars_of", "cost", "cost_figure"]

COLOURS = {"fwd": "#1f6fb2", "fwd-plain": "#9cc4e4", "ovs": "#e08a1e", "fastd": "#7a7a7a"}
DPI = 110


def bars_of(lines: list[dict[str, Any]]) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Rows with ratios: title, then bed to the spread of its ratio to the reference.

    Only the metrics a row is about: its first, and every one that has a goal.
    """
    found: list[tuple[str, dict[str, dict[str, Any]]]] = []
    for row in ROWS.values():
        for metric in row.metrics:
            if metric is not row.metrics[0] and not metric.goals:
                continue
            ratios = {}
            for line in lines:
                if line.get("row") != row.key or line.get("metric") != metric.key:
                    continue
                told = line.get("ratio", {})
                ratio = told.get(REFERENCE) or told.get(SAME_NODE_REFERENCE)
                if ratio is not None and line["bed"] in COLOURS:
                    ratios[line["bed"]] = ratio
            if ratios:
                lower = " (less is better)" if metric.lower_is_better else ""
                found.append((f"{metric.title}{lower}", ratios))
    return found


def bars(lines: list[dict[str, Any]], path: Path) -> bool:
    """Draw the ratios; False when there are none."""
    rows = bars_of(lines)
    if not rows:
        return False
    figure = Figure(figsize=(9, 1.2 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    beds = [bed for bed in COLOURS if any(bed in ratios for _, ratios in rows)]
    height = 0.8 / len(beds)
    for index, bed in enumerate(beds):
        places = [n for n, (_, ratios) in enumerate(rows) if bed in ratios]
        told = [rows[n][1][bed] for n in places]
        middle = [one["median"] for one in told]
        errors = [
            [one["median"] - one["min"] for one in told],
            [one["max"] - one["median"] for one in told],
        ]
        at = [n + (index - (len(beds) - 1) / 2) * height for n in places]
        axes.barh(
            at, middle, height, xerr=errors, label=BEDS[bed].title, color=COLOURS[bed],
            error_kw={"linewidth": 0.8},
        )  # fmt: skip
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("multiple of kernel VXLAN in the same round (same node: of veth + bridge)")
    axes.legend(loc="best", fontsize="small")
    axes.grid(axis="x", which="both", linewidth=0.3)
    figure.savefig(path, dpi=DPI)
    return True


def cost_figure(lines: list[dict[str, Any]]) -> Figure | None:
    """Make the panels that have figures; None when none has."""
    told = [(panel, panel.series(lines)) for panel in PANELS]
    told = [(panel, series) for panel, series in told if series]
    if not told:
        return None
    deep = (len(told) + 1) // 2
    figure = Figure(figsize=(11, 4 * deep), layout="constrained")
    for index, (panel, series) in enumerate(told, 1):
        _panel(figure.add_subplot(deep, 2, index), panel, series)
    return figure


def cost(lines: list[dict[str, Any]], path: Path) -> bool:
    """Draw what grows with flows, prefixes and pods; False when none of it was measured."""
    figure = cost_figure(lines)
    if figure is None:
        return False
    figure.savefig(path, dpi=DPI)
    return True


def _panel(
    axes: Axes, panel: Panel, series: dict[str, list[tuple[int, float, float, float]]]
) -> None:
    """Draw lines with their spread over a logarithmic x."""
    for title, points in series.items():
        counts = [point[0] for point in points]
        axes.plot(counts, [point[1] for point in points], marker="o", label=title)
        axes.fill_between(counts, [p[2] for p in points], [p[3] for p in points], alpha=0.2)
    low = min(point[2] for points in series.values() for point in points)
    high = max(point[3] for points in series.values() for point in points)
    axes.set_xscale("log")
    if panel.log and low > 0:  # a logarithm has no zero to begin at
        axes.set_yscale("log")
        axes.set_ylim(low / 1.5, high * 1.5)
    else:
        axes.set_ylim(0, 1.15 * high or 1.0)
    axes.set_xlabel(panel.grows)
    axes.set_ylabel(panel.unit)
    axes.legend(fontsize="small")
    axes.grid(linewidth=0.3)


mpl.rcParams["font.size"] = 9
