"""Lossless values: raw, in byte planes, or as the difference to values that both ends hold.

A float's mantissa is noise and its exponent is not: laid out byte by byte (planes), the exponents of a block shrink
under Huffman and the rest travels as it is. Against a base version the difference of bit patterns, counted in units
of last place, is small and exact: base + float delta would not give the same bits again.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Array, Cursor, Values
from fedprune.errors import DecodeError
from fedprune.tensor import FLOAT_DTYPES, NUMPY_DTYPES

BLOCK_VALUES = 1 << 16  # a block and its planes stay in the cache
Words = NDArray[np.unsignedinteger]  # of the value's own width


class ValueCoding(Protocol):
    """`values` [n] of the schema dtype `dtype`; `base` [n] are the same places of the version both ends hold."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[bytes]: ...

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None: ...


class Raw:
    """Little-endian values, end to end."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[bytes]:
        return [values.tobytes()]

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        out[:] = np.frombuffer(cursor.take(out.nbytes), out.dtype)


class Planes:
    """Blocks of byte planes, lowest byte first; floats with the sign rotated to the lowest bit."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[bytes]:
        words = _words(values)
        parts = []
        for start in range(0, words.size, BLOCK_VALUES):
            block = words[start : start + BLOCK_VALUES]
            parts += pack_planes(_rotate(block) if dtype in FLOAT_DTYPES else block)
        return parts

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        words = _words(out)
        for start in range(0, words.size, BLOCK_VALUES):
            block = words[start : start + BLOCK_VALUES]
            unpack_planes(cursor, block)
            if dtype in FLOAT_DTYPES:
                _unrotate(block)


class Difference:
    """Zigzag distances to the base in units of last place (integers: their difference), in byte planes."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[bytes]:
        assert base is not None
        words, origin = _words(values), _words(base)
        parts = []
        for start in range(0, words.size, BLOCK_VALUES):
            cut = slice(start, start + BLOCK_VALUES)
            distance = _ladder(words[cut], dtype) - _ladder(origin[cut], dtype)
            parts += pack_planes(_zigzag(distance))
        return parts

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        if base is None:
            raise DecodeError("values are coded against a base that is not at hand")
        words, origin = _words(out), _words(base)
        for start in range(0, words.size, BLOCK_VALUES):
            cut = slice(start, start + BLOCK_VALUES)
            unpack_planes(cursor, words[cut])
            step = _unzigzag(words[cut])
            words[cut] = _from_ladder(_ladder(origin[cut], dtype) + step, dtype)


def empty(count: int, dtype: str) -> Array:
    """Room for `count` values of the schema dtype `dtype`."""
    return np.empty(count, NUMPY_DTYPES[dtype])


def _words(values: Array) -> Words:
    return values.view(f"<u{values.dtype.itemsize}")


def _signed(words: Words) -> NDArray[np.signedinteger]:
    return words.view(f"<i{words.dtype.itemsize}")


def _bits(words: Words) -> int:
    return words.dtype.itemsize * 8


def _rotate(words: Words) -> Words:
    return _words(words << 1 | words >> (_bits(words) - 1))


def _unrotate(words: Words) -> None:
    words[:] = words >> 1 | words << (_bits(words) - 1)


def _ladder(words: Words, dtype: str) -> Words:
    """Bit patterns as steps of a ladder: neighbouring floats, -0.0 and 0.0 too, are one step apart; its own inverse
    up to the view. Works on every pattern, NaN included."""
    if dtype not in FLOAT_DTYPES:
        return words
    signed = _signed(words)
    low = np.array(2 ** (_bits(words) - 1) - 1, signed.dtype)
    return _words(signed ^ ((signed >> (_bits(words) - 1)) & low))


def _from_ladder(steps: Words, dtype: str) -> Words:
    return _ladder(steps, dtype)


def _zigzag(distance: Words) -> Words:
    return _words(distance << 1 ^ _words(_signed(distance) >> (_bits(distance) - 1)))


def _unzigzag(words: Words) -> Words:
    return _words(words >> 1 ^ (~(words & 1) + 1))


def pack_planes(words: Words) -> list[bytes]:
    """The bytes of `words` [n], plane by plane, lowest first, each a stream of its own."""
    columns = words.view(np.uint8).reshape(words.size, words.dtype.itemsize)
    parts = []
    for plane in range(words.dtype.itemsize):
        parts += entropy.pack(np.ascontiguousarray(columns[:, plane]))
    return parts


def unpack_planes(cursor: Cursor, out: Words) -> None:
    """Fill `out` with what `pack_planes` wrote."""
    columns = out.view(np.uint8).reshape(out.size, out.dtype.itemsize)
    plane = np.empty(out.size, np.uint8)
    for index in range(out.dtype.itemsize):
        entropy.unpack(cursor, plane)
        columns[:, index] = plane


CODINGS: dict[Values, ValueCoding] = {
    Values.RAW: Raw(),
    Values.PLANES: Planes(),
    Values.DIFFERENCE: Difference(),
}
