"""JSON lines: every figure with the commit, machine and command it is to be quoted with."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.stats import ratios, rounded, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["context", "figure", "load", "remark", "save"]

ROOT = Path(__file__).resolve().parent.parent


def context(module: str = "benchmarks") -> dict[str, Any]:
    """What a figure is quoted with: time, commit, machine, TCP's congestion control, command."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": done.stdout.strip() or "none",
        "kernel": platform.release(),
        "cpu": f"{_cpu_model()} x{os.cpu_count()}",
        "tcp": _first_word("/proc/sys/net/ipv4/tcp_congestion_control"),
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _first_word(path: str) -> str:
    try:
        return Path(path).read_text().split()[0]
    except (OSError, IndexError):
        return "unknown"


def figure(
    place: dict[str, Any],
    values: Sequence[float | None],
    others: Mapping[str, Sequence[float | None]] | None = None,
) -> dict[str, Any] | None:
    """Make one line: ``place`` (row, metric, unit, bed, ...), the rounds, their spread.

    ``others``, the rounds of other beds by name, give the spreads of the ratios to them. None when
    no round gave a figure.
    """
    told = spread(values)
    if told is None:
        return None
    kept = [None if value is None else rounded(value) for value in values]
    line = {**place, **told.as_json(), "values": kept}
    quotients = {name: spread(ratios(values, rounds)) for name, rounds in (others or {}).items()}
    ratio = {name: one.as_json() for name, one in quotients.items() if one is not None}
    return {**line, "ratio": ratio} if ratio else line


def remark(kind: str, text: str, **place: str) -> dict[str, Any]:
    """Make a line that says why a figure is not there; ``kind``: missing, failed or left-out."""
    return {**place, "remark": kind, "text": text}


def save(path: Path, lines: Iterable[dict[str, Any]], quoted: dict[str, Any]) -> None:
    """Write lines, each with the context it is quoted with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({**quoted, **line}) + "\n" for line in lines)


def load(path: Path) -> list[dict[str, Any]]:
    """Read what ``save`` wrote.

    Raises:
        ValueError: a line is not JSON; names its number.
    """
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return found
