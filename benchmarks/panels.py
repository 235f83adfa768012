"""What the plot of costs shows: a panel for each unit, over flows, prefixes or pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PANELS", "Panel", "series_of"]


@dataclass(frozen=True, slots=True)
class Panel:
    """Figures of one unit over what grows."""

    grows: str
    unit: str
    row: str
    by: str
    """The key of a line that holds how many there were."""
    metrics: dict[str, str]
    """Titles by metric."""
    log: bool = False
    """Whether the y axis is logarithmic."""

    @property
    def title(self) -> str:
        """What it shows over what."""
        return f"{', '.join(self.metrics.values())} ({self.unit}) over {self.grows}"

    def series(
        self, lines: list[dict[str, Any]]
    ) -> dict[str, list[tuple[int, float, float, float]]]:
        """Points by title; only those that have any."""
        found = {t: series_of(lines, self.row, m, self.by) for m, t in self.metrics.items()}
        return {title: points for title, points in found.items() if points}


PANELS = (
    Panel("flows", "ns", "core", "count",
          {"established": "packet, established", "new": "packet, first of a flow",
           "ct-lookup-batched": "lookup, batched", "ct-lookup-single": "lookup, single"}),
    Panel("flows", "bytes a flow", "core", "count",
          {"table": "table", "resident": "resident"}, log=True),
    Panel("prefixes", "ns", "core", "count", {"ipcache-lookup": "ipcache lookup"}),
    Panel("prefixes", "s", "core", "count", {"ipcache-load": "writing all"}, log=True),
    Panel("prefixes", "MB", "core", "count", {"ipcache-memory": "ipcache memory"}),
    Panel("pods on the node", "MB", "pods", "pods", {"rss_mb": "resident memory, idle"}),
    Panel("pods on the node", "% of a core", "pods", "pods", {"cpu_percent": "CPU, idle"}),
    Panel("pods on the node", "1/s", "pods", "pods", {"wakeups_s": "wake-ups, idle"}),
)  # fmt: skip


def series_of(
    lines: list[dict[str, Any]], row: str, metric: str, by: str
) -> list[tuple[int, float, float, float]]:
    """(count, median, min, max) of one figure over what grows, in order."""
    found = [
        (int(line[by]), line["median"], line["min"], line["max"])
        for line in lines
        if line.get("row") == row and line.get("metric") == metric and "median" in line
    ]
    return sorted(found)
