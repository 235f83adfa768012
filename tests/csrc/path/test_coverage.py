"""Every row of datapath.md with an outcome is proven, or its difference is explained."""

from __future__ import annotations

import pytest

from tests.csrc.path.coverage import SpecRow, claims, said, sections, stands

SECTIONS = sections()
LISTED = [row for rows in SECTIONS.values() for row in rows]


@pytest.mark.parametrize("title", SECTIONS)
def test_every_row_of_the_section_has_a_proof(title: str) -> None:
    """A data row, a test elsewhere, or a paragraph that says why not."""
    assert [f"{row.key} {row.phrase}" for row in SECTIONS[title] if not row.proven] == []


def test_a_data_row_claims_only_what_is_listed() -> None:
    """A mistyped key would leave its row unproven without a word."""
    assert set(claims()) - {row.key for row in LISTED} == set()


def test_no_row_is_listed_twice() -> None:
    """A key belongs to one section."""
    assert len({row.key for row in LISTED}) == len(LISTED)


@pytest.mark.parametrize("row", [one for one in LISTED if one.elsewhere], ids=lambda row: row.key)
def test_a_proof_elsewhere_exists(row: SpecRow) -> None:
    """The test or scenario named is still there."""
    assert [where for where in row.elsewhere if not stands(where)] == []


@pytest.mark.parametrize("row", [one for one in LISTED if one.differs], ids=lambda row: row.key)
def test_a_difference_is_explained(row: SpecRow) -> None:
    """The words quoted stand in the document named."""
    assert [where for where in row.differs if not said(where)] == []
