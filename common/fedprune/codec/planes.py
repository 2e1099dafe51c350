"""Words of two, four or eight bytes as planes of bytes: what varies little is then laid together, for Huffman to find.

Planes are made by halving and put together by doubling, so that every pass works on the narrowest words it can: half
the memory traffic of shifting whole words by bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Bytes, Cursor, Part

BLOCK_VALUES = 1 << 16  # a block and its planes stay in the cache
Words = NDArray[np.unsignedinteger]  # of the value's own width


def pack_planes(words: Words, *, rotated: bool = False) -> list[Part]:
    """The bytes of `words` [n], plane by plane, lowest first, each a stream of its own.

    With `rotated`, the highest 16 bits are rotated left by one first: the sign leaves, and the highest plane is the
    exponent alone.
    """
    return [part for plane in _split(words, rotated) for part in entropy.pack(plane)]


def unpack_planes(cursor: Cursor, count: int, dtype: np.dtype[Any], *, rotated: bool = False) -> Words:
    """The words [count] that `pack_planes` wrote; perhaps a view of the frame, where they are bytes."""
    return _join([entropy.unpack(cursor, count) for _ in range(dtype.itemsize)], rotated)


def _split(words: Words, rotated: bool) -> list[Bytes]:
    width = words.dtype.itemsize
    if width == 1:
        return [words.view(np.uint8)]
    if width == 2 and rotated:
        words = _rotate(words, 1)
    half = f"<u{width // 2}"
    high = (words >> 4 * width).astype(half)
    return [*_split(words.astype(half), False), *_split(high, rotated and width > 2)]


def _join(planes: list[Bytes], rotated: bool) -> Words:
    width = len(planes)
    if width == 1:
        return planes[0]
    half = width // 2
    words = _join(planes[half:], rotated and width > 2).astype(f"<u{width}")
    words <<= 4 * width
    # cast first: an operation on two widths is slower than both passes
    words |= _join(planes[:half], False).astype(words.dtype)
    return _rotate(words, 15) if width == 2 and rotated else words


def _rotate(words: Words, left: int) -> Words:
    rotated: Words = words << np.uint16(left)
    rotated |= words >> np.uint16(16 - left)
    return rotated
