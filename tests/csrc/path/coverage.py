"""Which row of datapath.md is proven where: spec/*.yaml held against the data rows.

A file of spec/ is one section: {title, rows}. A key of ``rows`` is section/row, as ``4.2/3`` (the
third row or sentence with an outcome) or ``5.1/host`` (a table's own key); its value is what the
row says, in a phrase, or a map: ``row`` (the phrase), ``elsewhere`` (one or more tests,
``tests/file.py::name``, or scenario directories that prove it besides or instead of a data row)
and ``differs`` (``docs/FILE.md: words`` - words that stand there once, in the paragraph that says
why we knowingly do otherwise). A row of rows/*.yaml claims one or more with ``spec``.
``python -m tests.csrc.path.coverage`` prints the sums, and the rows without proof.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclass(frozen=True, slots=True)
class SpecRow:
    """One row of the specification and what is said to prove it."""

    key: str
    phrase: str
    rows: tuple[str, ...]
    """Data rows, file: name."""
    elsewhere: tuple[str, ...]
    differs: tuple[str, ...]

    @property
    def proven(self) -> bool:
        """True if something runs for it, or a paragraph says why it is otherwise."""
        return bool(self.rows or self.elsewhere or self.differs)


def as_list(value: Any) -> tuple[str, ...]:
    """One or several strings."""
    return tuple(value) if isinstance(value, list) else (value,) if value else ()


def claims() -> dict[str, list[str]]:
    """Spec key -> the data rows that claim it."""
    found: dict[str, list[str]] = {}
    for path in sorted((HERE / "rows").glob("*.yaml")):
        for row in YAML(typ="safe", pure=True).load(path.read_text()).get("rows", []):
            for key in as_list(row.get("spec")):
                found.setdefault(key, []).append(f"{path.name}: {row['name']}")
    return found


def sections() -> dict[str, list[SpecRow]]:
    """Title of a section -> its rows, in the order of the specification."""
    found, claimed = {}, claims()
    for path in sorted((HERE / "spec").glob("*.yaml")):
        listed = YAML(typ="safe", pure=True).load(path.read_text())
        rows = found.setdefault(f"{path.stem} {listed['title']}", [])
        for key, value in listed["rows"].items():
            said = value if isinstance(value, dict) else {"row": value}
            assert set(said) <= {"row", "elsewhere", "differs"}, f"{path.name}: {key}"
            rows.append(
                SpecRow(
                    key=key,
                    phrase=said["row"],
                    rows=tuple(claimed.get(key, ())),
                    elsewhere=as_list(said.get("elsewhere")),
                    differs=as_list(said.get("differs")),
                )
            )
    return found


def stands(where: str) -> bool:
    """True if ``tests/file.py::name`` names a test there is, or the path exists."""
    name, _, test = where.partition("::")
    path = ROOT / name
    if not test:
        return path.is_dir()
    pattern = re.compile(rf"^(async )?def {test}\(", re.MULTILINE)
    return path.is_file() and pattern.search(path.read_text()) is not None


def said(where: str) -> bool:
    """True if ``docs/FILE.md: words`` stand in that file, whatever its line breaks."""
    name, _, words = where.partition(": ")
    path = ROOT / name
    return bool(words) and path.is_file() and words in " ".join(path.read_text().split())


def main() -> None:
    """Print rows, covered and deliberately different ones, and the names of the open ones."""
    for title, rows in sections().items():
        tests = sum(bool(row.rows or row.elsewhere) for row in rows)
        print(f"{title}: {len(rows)} rows, {tests} proven by tests,", end=" ")
        print(f"{sum(bool(row.differs) for row in rows)} deliberately different")
        for row in rows:
            if not row.proven:
                print(f"  without proof: {row.key} {row.phrase}")


if __name__ == "__main__":
    main()
