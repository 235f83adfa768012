"""Slow twin of fwd/model/maglev.py: the paper's pseudo-code, with whole permutations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["populate"]


def populate(
    names: Sequence[str], size: int, hashes: Callable[[str], tuple[int, int]]
) -> list[int]:
    """Which name stands at which place (NSDI 2016, pseudo-code 1)."""
    permutation = []
    for name in names:
        first, second = hashes(name)
        offset, skip = first % size, second % (size - 1) + 1
        permutation.append([(offset + j * skip) % size for j in range(size)])
    following = [0] * len(names)
    entry = [-1] * size
    filled = 0
    while True:
        for i in range(len(names)):
            place = permutation[i][following[i]]
            while entry[place] >= 0:
                following[i] += 1
                place = permutation[i][following[i]]
            entry[place] = i
            following[i] += 1
            filled += 1
            if filled == size:
                return entry
