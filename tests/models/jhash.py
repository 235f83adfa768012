"""Slow twin of jhash_words and jhash_mix of csrc/base/hash.h: lookup3's hashlittle, whole."""

from __future__ import annotations

__all__ = ["hashlittle", "mix"]

MASK = 0xFFFFFFFF


def rol(word: int, bits: int) -> int:
    """Turn 32 bits to the left."""
    return (word << bits | word >> (32 - bits)) & MASK


def mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """The inner round, written out as its author did."""
    a = ((a - c) & MASK) ^ rol(c, 4)
    c = (c + b) & MASK
    b = ((b - a) & MASK) ^ rol(a, 6)
    a = (a + c) & MASK
    c = ((c - b) & MASK) ^ rol(b, 8)
    b = (b + a) & MASK
    a = ((a - c) & MASK) ^ rol(c, 16)
    c = (c + b) & MASK
    b = ((b - a) & MASK) ^ rol(a, 19)
    a = (a + c) & MASK
    c = ((c - b) & MASK) ^ rol(b, 4)
    return a, (b + a) & MASK, c


def final(a: int, b: int, c: int) -> int:
    """The last round."""
    c = ((c ^ b) - rol(b, 14)) & MASK
    a = ((a ^ c) - rol(c, 11)) & MASK
    b = ((b ^ a) - rol(a, 25)) & MASK
    c = ((c ^ b) - rol(b, 16)) & MASK
    a = ((a ^ c) - rol(c, 4)) & MASK
    b = ((b ^ a) - rol(a, 14)) & MASK
    return ((c ^ b) - rol(b, 24)) & MASK


def hashlittle(data: bytes, seed: int) -> int:
    """Bob Jenkins' hash of bytes."""
    a = b = c = (0xDEADBEEF + len(data) + seed) & MASK
    while len(data) > 12:
        words = [int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8)]
        a, b, c = mix((a + words[0]) & MASK, (b + words[1]) & MASK, (c + words[2]) & MASK)
        data = data[12:]
    if not data:
        return c
    words = [int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8)]
    return final((a + words[0]) & MASK, (b + words[1]) & MASK, (c + words[2]) & MASK)
