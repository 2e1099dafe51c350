"""Words of two, four or eight bytes as planes of bytes: what varies little is then laid together, for Huffman to find.

Planes are made by halving and put together by doubling, so that every pass works on the narrowest words it can: half
the memory traffic of shifting whole words by bytes. To the left, products stand for shifts: numpy makes those of 16-bit
words three times faster.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Bytes, Cursor
from fedprune.codec.room import Room

BLOCK_VALUES = 1 << 16  # a block and its planes stay in the cache
Words = NDArray[np.unsignedinteger]  # of the value's own width
Outlooks = list[entropy.Outlook]  # lowest plane first


def pack_planes(room: Room, words: Words, *, rotated: bool = False, expected: Outlooks | None = None) -> None:
    """Write the bytes of `words` [n, at most one block], plane by plane, lowest first, each a stream of its own.

    `expected` is what `outlooks` said of the blocks that this is one of. With `rotated`, the highest 16 bits are rotated left by one first: the sign leaves, and the highest plane is the
    exponent alone. A plane that does not shrink is written once, where it stays.
    """
    for lowest, outlook in zip(_split(words, rotated), expected or [entropy.UNKNOWN] * words.itemsize, strict=True):
        place = room.ahead(1 + words.size)
        plane = place[1:]
        np.copyto(plane, lowest, casting="unsafe")
        coded = entropy.shrink(plane, outlook)
        if coded:
            room.put(coded)
        else:
            place[0] = entropy.Mode.RAW
            room.advance(place.size)


def outlooks(sample: Words, *, rotated: bool = False) -> Outlooks:
    """What to expect of the planes of blocks from words taken here and there."""
    return [entropy.outlook(lowest.astype(np.uint8)) for lowest in _split(sample, rotated)]


def unpack_planes(cursor: Cursor, out: Words, *, rotated: bool = False) -> None:
    """Fill `out` [n, at most one block] with the words that `pack_planes` wrote."""
    planes = [entropy.unpack(cursor, out.size) for _ in range(out.dtype.itemsize)]
    _join(planes, out, rotated)


def planes_bound(words: Words) -> int:
    """The most bytes that the planes of `words` take."""
    return words.nbytes + words.dtype.itemsize * -(-words.size // BLOCK_VALUES)


def _split(words: Words, rotated: bool) -> Iterator[Words]:
    """Words whose lowest byte is the plane, plane by plane."""
    width = words.dtype.itemsize
    if width == 1:
        yield words
    elif width == 2 and rotated:
        # the sign comes in below the seven bits of the mantissa that are above it
        low = words.astype(np.uint8)
        low += low
        low |= (words.view("<i2") < 0).view(np.uint8)
        yield low
        yield words >> np.uint16(7)
    elif width == 2:
        yield words
        yield words >> np.uint16(8)
    else:
        half = f"<u{width // 2}"
        yield from _split(words.astype(half), False)
        yield from _split((words >> 4 * width).astype(half), rotated)


def _join(planes: list[Bytes], out: Words, rotated: bool) -> None:
    width = out.dtype.itemsize
    if width == 1:
        out[:] = planes[0]
        return
    half = width // 2
    np.copyto(out, _joined(planes[half:], rotated and width > 2))
    # cast first: an operation on two widths is slower than both passes
    low = _joined(planes[:half], False).astype(out.dtype)
    if rotated and width == 2:
        # both bytes are one bit too high, and the lowest bit is the sign
        out *= np.uint16(1 << 7)
        out |= low >> np.uint16(1)
        low *= np.uint16(1 << 15)
    else:
        out *= out.dtype.type(1 << 4 * width)
    out |= low


def _joined(planes: list[Bytes], rotated: bool) -> Words:
    if len(planes) == 1:
        return planes[0]
    words: Words = np.empty(planes[0].size, f"<u{len(planes)}")
    _join(planes, words, rotated)
    return words
