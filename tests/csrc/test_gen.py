"""csrc/gen.py: the rows of the .def files reach Python and the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fwd.model.enums import DROP_ADVICE, DROP_TEXT, OBS_TEXT, STAGE_INFO, Drop, Obs, Stage
from tests.csrc.internal import internal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("enum", "prefix"), [(Drop, "FWD_DROP_"), (Obs, "FWD_OBS_"), (Stage, "FWD_STAGE_")]
)
def test_gen_enums_are_the_compilers(enum, prefix) -> None:
    """Every member has the number the C compiler gave it."""
    _, lib = internal()
    assert {member.name: member.value for member in enum} == {
        member.name: getattr(lib, prefix + member.name) for member in enum
    }


def test_gen_every_row_has_its_texts() -> None:
    """A reason without a sentence and an advice explains nothing."""
    assert set(DROP_TEXT) == set(DROP_ADVICE) == {int(reason) for reason in Drop}
    assert set(OBS_TEXT) == {int(point) for point in Obs}
    assert set(STAGE_INFO) == {int(stage) for stage in Stage}
    assert all(len(text) > 20 for text in DROP_ADVICE.values())


def test_gen_documents_every_reason() -> None:
    """docs/reasons.md has one row a reason, in order."""
    rows = re.findall(
        r"^\| (\d+) \| (\w+) \|", (ROOT / "docs/reasons.md").read_text(), re.MULTILINE
    )
    assert [(int(number), name) for number, name in rows] == [(d.value, d.name) for d in Drop]
