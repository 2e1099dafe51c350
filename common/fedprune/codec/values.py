"""Lossless values: raw, in byte planes, or as the difference to values that both ends hold.

A float's mantissa is noise and its exponent is not: laid out byte by byte (planes), the exponents of a block shrink
under Huffman and the rest travels as it is. Against a base version the difference of bit patterns, counted in units
of last place, is small and exact: base + float delta would not give the same bits again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Array, Cursor, Part, Values
from fedprune.errors import DecodeError
from fedprune.tensor import FLOAT_DTYPES, NUMPY_DTYPES

BLOCK_VALUES = 1 << 16  # a block and its planes stay in the cache
Words = NDArray[np.unsignedinteger]  # of the value's own width


class ValueCoding(Protocol):
    """`values` [n] of the schema dtype `dtype`; `base` [n] are the same places of the version both ends hold."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[Part]: ...

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None: ...


class Raw:
    """Little-endian values, end to end."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[Part]:
        return [_words(values).data.cast("B")] if values.size else []

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        out[:] = np.frombuffer(cursor.take(out.nbytes), out.dtype)


class Planes:
    """Blocks of byte planes, lowest byte first; floats with the sign rotated to the lowest bit."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[Part]:
        parts = []
        for block in _blocks(_words(values)):
            parts += pack_planes(rotate(block) if dtype in FLOAT_DTYPES else block)
        return parts

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        for block in _blocks(_words(out)):
            unpack_planes(cursor, block)
            if dtype in FLOAT_DTYPES:
                rotate_back(block)


class Difference:
    """Zigzag distances to the base in units of last place (integers: their difference), in byte planes."""

    def encode(self, values: Array, dtype: str, base: Array | None) -> list[Part]:
        assert base is not None
        parts = []
        for block, origin in zip(_blocks(_words(values)), _blocks(_words(base)), strict=True):
            steps = _ladder(block, dtype)
            steps -= _ladder(origin, dtype)
            _zigzag(steps)
            parts += pack_planes(steps)
        return parts

    def decode(self, cursor: Cursor, out: Array, dtype: str, base: Array | None) -> None:
        if base is None:
            raise DecodeError("values are coded against a base that is not at hand")
        for block, origin in zip(_blocks(_words(out)), _blocks(_words(base)), strict=True):
            unpack_planes(cursor, block)
            _unzigzag(block)
            block += _ladder(origin, dtype)
            _from_ladder(block, dtype)


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


def pack_planes(words: Words) -> list[Part]:
    """The bytes of `words` [n], plane by plane, lowest first, each a stream of its own."""
    parts: list[Part] = []
    shifted = words
    for plane in range(words.dtype.itemsize):
        if plane:
            shifted = np.right_shift(words, 8 * plane, out=None if plane == 1 else shifted)
        parts += entropy.pack(shifted.astype(np.uint8))
    return parts


def unpack_planes(cursor: Cursor, out: Words) -> None:
    """Fill `out` with what `pack_planes` wrote."""
    planes = [entropy.unpack(cursor, out.size) for _ in range(out.dtype.itemsize)]
    out[:] = planes.pop()
    while planes:
        np.left_shift(out, 8, out=out)
        np.bitwise_or(out, planes.pop(), out=out)


def rotate(words: Words) -> Words:
    """The sign moved from the highest to the lowest bit, so that the highest plane is the exponent alone."""
    return _words(words << 1 | words >> (_bits(words) - 1))


def rotate_back(words: Words) -> None:
    """Undo `rotate`, in place."""
    sign = words << (_bits(words) - 1)
    np.right_shift(words, 1, out=words)
    np.bitwise_or(words, sign, out=words)


def _blocks(words: Words) -> Iterator[Words]:
    for start in range(0, words.size, BLOCK_VALUES):
        yield words[start : start + BLOCK_VALUES]


def _words(values: Array) -> Words:
    return values.view(f"<u{values.dtype.itemsize}")


def _signed(words: Words) -> NDArray[np.signedinteger]:
    return words.view(f"<i{words.dtype.itemsize}")


def _bits(words: Words) -> int:
    return words.dtype.itemsize * 8


def _ladder(words: Words, dtype: str) -> Words:
    """Bit patterns as steps of a ladder: neighbouring floats, -0.0 and 0.0 too, are one step apart. Works on every
    pattern, NaN included; new memory."""
    steps = words.copy()
    _from_ladder(steps, dtype)
    return steps


def _from_ladder(steps: Words, dtype: str) -> None:
    """From steps to bit patterns, in place; being its own inverse, also the other way."""
    if dtype in FLOAT_DTYPES:
        below_sign = _words(_signed(steps) >> (_bits(steps) - 1))  # all ones under a negative sign
        np.right_shift(below_sign, 1, out=below_sign)
        np.bitwise_xor(steps, below_sign, out=steps)


def _zigzag(steps: Words) -> None:
    sign = _words(_signed(steps) >> (_bits(steps) - 1))
    np.left_shift(steps, 1, out=steps)
    np.bitwise_xor(steps, sign, out=steps)


def _unzigzag(words: Words) -> None:
    sign = words & 1
    np.negative(sign, out=sign)
    np.right_shift(words, 1, out=words)
    np.bitwise_xor(words, sign, out=words)


CODINGS: dict[Values, ValueCoding] = {
    Values.RAW: Raw(),
    Values.PLANES: Planes(),
    Values.DIFFERENCE: Difference(),
}
