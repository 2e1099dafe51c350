"""Words of two, four or eight bytes as planes of bytes: what varies little is then laid together, for Huffman to find.

A plane is one cast: a word that is read from its second byte on has that byte lowest. Planes are put together by doubling,
so that every pass works on the narrowest words it can, and by casts to a place half a word further on. One product stands
for a shift to the left: numpy makes those of 16-bit words three times faster. Where words are few, calls are what costs, and
each plane is put to its places in one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Bytes, Cursor
from fedprune.codec.room import Room

BLOCK_VALUES = 1 << 16  # a block and its planes stay in the cache
FEW_WORDS = 1 << 12  # below it, bytes one by one take less time than the calls for wider and wider words
Words = NDArray[np.unsignedinteger]  # of the value's own width
Outlooks = list[entropy.Outlook]  # lowest plane first


def pack_planes(room: Room, words: Words, *, rotated: bool = False, expected: Outlooks | None = None) -> None:
    """Write the bytes of `words` [n, at most one block], plane by plane, lowest first, each a stream of its own.

    With `rotated`, the highest 16 bits are rotated left by one first: the sign leaves, and the highest plane is the
    exponent alone. `expected` is what `outlooks` said of the blocks that this is one of. A plane that does not shrink is
    written once, where it stays.
    """
    split = _Split(words, rotated)
    for number in range(words.itemsize):
        place = room.ahead(1 + words.size)
        plane = place[1:]
        split.fill(number, plane)
        coded = entropy.shrink(plane, expected[number] if expected else entropy.UNKNOWN)
        if coded:
            room.put(coded)
        else:
            place[0] = entropy.Mode.RAW
            room.advance(place.size)


def outlooks(sample: Words, *, rotated: bool = False) -> Outlooks:
    """What to expect of the planes of blocks from words [n] taken here and there."""
    split, plane = _Split(np.ascontiguousarray(sample), rotated), np.empty(sample.size, np.uint8)
    expected = []
    for number in range(sample.itemsize):
        split.fill(number, plane)
        expected.append(entropy.outlook(plane))
    return expected


def unpack_planes(cursor: Cursor, out: Words, *, rotated: bool = False) -> None:
    """Fill `out` [n, at most one block] with the words that `pack_planes` wrote."""
    planes = [entropy.unpack(cursor, out.size) for _ in range(out.dtype.itemsize)]
    _join(planes, out, rotated)


def planes_bound(words: Words) -> int:
    """The most bytes that the planes of `words` take."""
    return words.nbytes + words.dtype.itemsize * -(-words.size // BLOCK_VALUES)


class _Split:
    """Words [n, at least one], end to end in memory, of which planes are wanted."""

    def __init__(self, words: Words, rotated: bool) -> None:
        self._words = words
        self._upper: Words | None = None  # the 16 bits that are rotated
        if rotated and words.itemsize > 1:
            self._upper = np.empty(words.size, "<u2")
            _read_from(words, words.itemsize - 2, self._upper)

    def fill(self, number: int, plane: Bytes) -> None:
        """Write byte `number` of each word, the lowest being 0, to `plane` [n]."""
        beyond = number - self._words.itemsize
        if self._upper is None or beyond < -2:
            _read_from(self._words, number, plane)
        elif beyond == -1:
            np.copyto(plane, self._upper >> np.uint16(7), casting="unsafe")
        else:
            # what is above the lowest seven bits has left, and the sign comes in below them
            np.copyto(plane, self._upper, casting="unsafe")
            plane += plane
            plane |= (self._upper.view("<i2") < 0).view(np.uint8)


def _read_from(words: Words, byte: int, out: Words) -> None:
    """The lowest bits of each word [n] when it is read from its byte number `byte` on, as many as `out` [n] takes."""
    data, width = words.view(np.uint8), words.itemsize
    end = (words.size - 1) * width
    np.copyto(out[:-1], data[byte : byte + end].view(words.dtype), casting="unsafe")
    out[-1:] = data[end + byte : end + byte + out.itemsize].view(out.dtype)


def _join(planes: list[Bytes], out: Words, rotated: bool) -> None:
    width = out.dtype.itemsize
    if width == 1:
        out[:] = planes[0]
        return
    if out.size < FEW_WORDS:
        data = out.view(np.uint8).reshape(-1, width)
        for number, plane in enumerate(planes):
            data[:, number] = plane
        if rotated:
            _rotate_back(out.view("<u2")[width // 2 - 1 :: width // 2])
        return
    half = width // 2
    np.copyto(out, _joined(planes[:half], False))
    out |= _raised(_joined(planes[half:], rotated and width > 2), width)
    if rotated and width == 2:
        _rotate_back(out)


def _rotate_back(upper: Words) -> None:
    """Turn 16-bit words right by one, in place."""
    signs = upper * np.uint16(1 << 15)
    upper >>= np.uint16(1)
    upper |= signs


def _joined(planes: list[Bytes], rotated: bool) -> Words:
    if len(planes) == 1:
        return planes[0]
    words: Words = np.empty(planes[0].size, f"<u{len(planes)}")
    _join(planes, words, rotated)
    return words


def _raised(words: Words, width: int) -> Words:
    """`words` [n] as the upper halves of words of `width` bytes: written half a word further on than they are read."""
    half = width // 2
    data = np.empty(width * words.size + half, np.uint8)
    data[:half] = 0
    np.copyto(data[half:].view(f"<u{width}"), words)
    raised: Words = data[:-half].view(f"<u{width}")
    return raised
