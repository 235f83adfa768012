"""The Internet checksum, slow and obvious (RFC 1071): 16 bits at a time, carries folded at once."""

from __future__ import annotations

__all__ = ["checksum"]


def checksum(data: bytes, initial: int = 0) -> int:
    """Inverted one's-complement sum of big-endian words, the last byte padded with zero."""
    padded = data + b"\0" * (len(data) % 2)
    total = initial
    for at in range(0, len(padded), 2):
        total += padded[at] << 8 | padded[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
