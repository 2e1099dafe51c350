"""Lossless values: raw, in byte planes, or as the difference to values that both ends hold.

A float's mantissa is noise and its exponent is not: laid out byte by byte (planes), the exponents of a block shrink
under Huffman and the rest travels as it is. Against a base version the difference of bit patterns is small and exact:
base + float delta would not give the same bits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from fedprune.codec.base import Array, Cursor, Part, Values
from fedprune.codec.planes import BLOCK_VALUES, Words, outlooks, pack_planes, planes_bound, unpack_planes
from fedprune.codec.room import Room
from fedprune.errors import DecodeError
from fedprune.tensor import FLOAT_DTYPES, NUMPY_DTYPES

SAMPLE_WORDS = 1 << 12


class ValueCoding(Protocol):
    """`values` [n] of the schema dtype `dtype`; `base` [n] are the same places of the version both ends hold.

    What `encode` gives may lie in `room`, and is valid until that is used again."""

    def encode(self, values: Array, dtype: str, base: Array | None, room: Room) -> list[Part]: ...

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None: ...


class Raw:
    """Little-endian values, end to end."""

    def encode(self, values: Array, dtype: str, base: Array | None, room: Room) -> list[Part]:
        return [_words(values).data.cast("B")] if values.size else []

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        out[:] = np.frombuffer(cursor.take(out.nbytes), out.dtype)


class Planes:
    """Blocks of byte planes, lowest byte first; of floats the upper half is rotated, so that a plane is all exponent."""

    def encode(self, values: Array, dtype: str, base: Array | None, room: Room) -> list[Part]:
        words, rotated = _words(values), dtype in FLOAT_DTYPES
        room.restart(planes_bound(words))
        expected = outlooks(_sample(words), rotated=rotated) if words.size > BLOCK_VALUES else None
        for block in _blocks(words):
            pack_planes(room, block, rotated=rotated, expected=expected)
        return [room.written]

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        for block in _blocks(_words(out)):
            unpack_planes(cursor, block, rotated=dtype in FLOAT_DTYPES)


class Difference:
    """Distances to the base, modulo the width, in byte planes.

    What is added is half of what a byte can say, to every byte but the highest: a small distance then moves the
    lowest bytes only, whatever its sign, as zigzag would have it for three passes more. Bit patterns of floats with one
    sign are as far apart as the floats are in units of last place.
    """

    def encode(self, values: Array, dtype: str, base: Array | None, room: Room) -> list[Part]:
        assert base is not None
        words, held = _words(values), _words(base)
        room.restart(planes_bound(words))
        expected = outlooks(_steps(_sample(words), _sample(held))) if words.size > BLOCK_VALUES else None
        for block, origin in zip(_blocks(words), _blocks(held), strict=True):
            pack_planes(room, _steps(block, origin), expected=expected)
        return [room.written]

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        if base is None:
            raise DecodeError("values are coded against a base that is not at hand")
        for block, origin in zip(_blocks(_words(out)), _blocks(_words(base)), strict=True):
            unpack_planes(cursor, block)
            block += origin
            block -= _middle(block)


def empty(count: int, dtype: str) -> Array:
    """Room for `count` values of the schema dtype `dtype`."""
    return np.empty(count, NUMPY_DTYPES[dtype])


def proof_of(values: Array) -> int:
    """What shows that values decoded against a base are the ones that were encoded: their bytes as little-endian
    64-bit numbers, the last one filled up with zeros, summed modulo 2^64. A CRC would take longer than the decoding."""
    data = values.view(np.uint8)
    whole = data.size // 8 * 8
    total = int(data[:whole].view("<u8").sum(dtype=np.uint64)) + int.from_bytes(data[whole:].tobytes(), "little")
    return total % (1 << 64)


def _blocks(words: Words) -> Iterator[Words]:
    for start in range(0, words.size, BLOCK_VALUES):
        yield words[start : start + BLOCK_VALUES]


def _sample(words: Words) -> Words:
    """Some thousand of them from everywhere, a step apart that no row or kernel has."""
    return words[:: words.size // SAMPLE_WORDS | 1]


def _steps(words: Words, origin: Words) -> Words:
    steps = np.subtract(words, origin)
    steps += _middle(steps)
    return steps


def _words(values: Array) -> Words:
    return values.view(f"<u{values.dtype.itemsize}")


def _middle(words: Words) -> np.unsignedinteger:
    """128 in every byte but the highest."""
    return words.dtype.type(int.from_bytes(b"\x80" * (words.dtype.itemsize - 1), "little"))


CODINGS: dict[Values, ValueCoding] = {
    Values.RAW: Raw(),
    Values.PLANES: Planes(),
    Values.DIFFERENCE: Difference(),
}
