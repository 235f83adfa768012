"""Maglev tables: the hash, the filling, and what they promise."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwd.model.maglev import MAGLEV_SEED, MAGLEV_SIZE, maglev_table, murmur3
from tests.models.maglev import populate

NAMES = tuple(sorted(f"10.244.{n // 5}.{n}:8080/6" for n in range(10)))
SEED = int.from_bytes(MAGLEV_SEED[:4], "big")

VECTORS = [  # of the reference MurmurHash3_x64_128, seed 0, as its hexadecimal output
    ("", "00000000000000000000000000000000"),
    ("hello", "cbd8a7b341bd9b025b1e906a48ae1d19"),
    ("The quick brown fox jumps over the lazy dog", "e34bbc7bbc071b6c7a433ca9c49a9347"),
]


@pytest.mark.parametrize(("text", "expected"), VECTORS)
def test_murmur3_gives_the_known_values(text: str, expected: str) -> None:
    """Empty, shorter than a block, and three blocks with a tail."""
    assert "%016x%016x" % murmur3(text.encode(), 0) == expected  # noqa: UP031 - two at once


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=12, unique=True),
    st.sampled_from([251, 509, 1021]),
)
def test_the_table_is_the_papers(names: list[str], size: int) -> None:
    """Whatever the names, the places are those of the pseudo-code."""
    expected = populate(names, size, lambda name: murmur3(name.encode(), SEED))
    assert list(maglev_table(tuple(names), size)) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_shares_differ_by_one_place_at_most(count: int) -> None:
    """Backends take turns, so nobody has two places more than another."""
    shares = Counter(maglev_table(NAMES[:count]))
    assert sum(shares.values()) == MAGLEV_SIZE
    assert len(shares) == count
    assert max(shares.values()) - min(shares.values()) <= 1


@pytest.mark.parametrize("gone", range(10))
def test_a_backend_that_goes_moves_few_others(gone: int) -> None:
    """Of the places that stay, nine in ten keep their backend."""
    fewer = NAMES[:gone] + NAMES[gone + 1 :]
    before = [NAMES[index] for index in maglev_table(NAMES)]
    after = [fewer[index] for index in maglev_table(fewer)]
    kept = [(a, b) for a, b in zip(before, after, strict=True) if a != NAMES[gone]]
    assert sum(a == b for a, b in kept) / len(kept) > 0.9


def test_no_backend_has_no_table() -> None:
    """Nothing to choose from is nothing."""
    assert maglev_table(()) == ()
