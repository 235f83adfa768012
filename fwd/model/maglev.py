"""Maglev: which of a service's backends stands at which place of its table.

Pure and the same on every node: it depends on the backends' names and on the seed alone, and a
backend that comes or goes moves few of the others' places. Source: datapath reference 4.3; Maglev
(NSDI 2016) section 3.4; MurmurHash3_x64_128.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAGLEV_SEED", "MAGLEV_SIZE", "maglev_table", "murmur3"]

MAGLEV_SIZE: Final = 1021
"""Places of a table, a prime; FWD_MAGLEV_SIZE of csrc/abi.h."""
MAGLEV_SEED: Final = base64.b64decode("JLfvgnHc2kaSUFaI")
"""Cilium's default: bytes 0-3 seed the names' hash, 4-7 and 8-11 the clients' (path/nodeport.c)."""
_NAME_SEED = int.from_bytes(MAGLEV_SEED[:4], "big")
_MASK = (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


@lru_cache(maxsize=1024)
def maglev_table(names: tuple[str, ...], size: int = MAGLEV_SIZE) -> tuple[int, ...]:
    """Return for each place the index of its backend in ``names``; nothing when there is none.

    Args:
        names: of the backends, each once, in an order that all nodes have.
        size: places, a prime greater than the number of names.
    """
    if not names:
        return ()
    wishes = [_permutation(name, size) for name in names]
    table: list[int | None] = [None] * size
    for turn in range(size):
        index = turn % len(names)
        place = next(place for place in wishes[index] if table[place] is None)
        table[place] = index
    return tuple(index for index in table if index is not None)


def _permutation(name: str, size: int) -> Iterator[int]:
    """Give the places in the order in which a backend wants them."""
    first, second = murmur3(name.encode(), _NAME_SEED)
    offset, skip = first % size, second % (size - 1) + 1
    return ((offset + step * skip) % size for step in range(size))


def murmur3(data: bytes, seed: int) -> tuple[int, int]:
    """Return the two halves of MurmurHash3_x64_128."""
    h1 = h2 = seed
    body = len(data) - len(data) % 16
    for at in range(0, body, 16):
        k1 = int.from_bytes(data[at : at + 8], "little")
        k2 = int.from_bytes(data[at + 8 : at + 16], "little")
        h1 = ((_turn(h1 ^ _mix1(k1), 27) + h2) * 5 + 0x52DCE729) & _MASK
        h2 = ((_turn(h2 ^ _mix2(k2), 31) + h1) * 5 + 0x38495AB5) & _MASK
    tail = data[body:]
    h1 ^= _mix1(int.from_bytes(tail[:8], "little")) ^ len(data)
    h2 ^= _mix2(int.from_bytes(tail[8:], "little")) ^ len(data)
    h1 = (h1 + h2) & _MASK
    h2 = (h2 + h1) & _MASK
    h1, h2 = _finish(h1), _finish(h2)
    h1 = (h1 + h2) & _MASK
    return h1, (h2 + h1) & _MASK


def _turn(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK


def _mix1(word: int) -> int:
    return _turn(word * _C1 & _MASK, 31) * _C2 & _MASK


def _mix2(word: int) -> int:
    return _turn(word * _C2 & _MASK, 33) * _C1 & _MASK


def _finish(word: int) -> int:
    word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & _MASK
    word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & _MASK
    return word ^ word >> 33
