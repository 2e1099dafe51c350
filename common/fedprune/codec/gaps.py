"""Gaps between places: the form that comes within 2 % of the entropy of a random mask, and below it on real ones.

`gap` writes each gap as a small float of one byte, exact where gaps are short, and leaves those bytes to Huffman; the
bits below the mantissa follow raw. `rice` (Golomb-Rice, as in Sparse Ternary Compression, Sattler et al. 2019) has no
table to send and serves short streams, where a Huffman table would cost more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Cursor, Part, Shape, length, space_size, varint
from fedprune.codec.places import Places
from fedprune.errors import DecodeError
from fedprune.mask import Indices

MANTISSA_BITS = 2
EXACT_BITS = (3, 6)  # short streams want a short table, long ones few raw bits
LONG_STREAM = 1 << 12  # from here on the shorter table saves less than 1 %
MAX_GAP_BITS = 40
MAX_RICE_BITS = 40

CHUNK = 1 << 15  # gaps of one chunk stay in the cache

Gaps = NDArray[np.int64]


class Gap:
    """One byte: how many bits are exact. Then the symbols, then the raw bits, narrow classes first."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        choices = EXACT_BITS if places.count < LONG_STREAM else EXACT_BITS[-1:]
        return min((_encode(places.indices, exact) for exact in choices), key=length)

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        exact = cursor.byte()
        if exact not in EXACT_BITS:
            raise DecodeError("no such gap coding", seen=exact, expected=EXACT_BITS)
        symbols, lowest = entropy.unpack(cursor, count), _lowest(exact)
        if count and int(symbols.max()) >= lowest.size:
            raise DecodeError("a gap is too long", seen=int(symbols.max()), expected=f"below {lowest.size}")
        gaps = np.empty(count, np.int64)
        for start in range(0, count, CHUNK):
            lowest.take(symbols[start : start + CHUNK], out=gaps[start : start + CHUNK], mode="clip")
        _add_raw_bits(cursor, gaps, symbols, exact)
        return _from_gaps(gaps, space_size(shapes))


class Rice:
    """One byte: the number of raw bits k. Those of all gaps, then the length in bytes of the unary part, then it."""

    def encode(self, places: Places, shapes: Sequence[Shape]) -> list[Part]:
        gaps = _gaps(places.indices)
        low_bits = _rice_bits(gaps)
        ends = np.cumsum((gaps >> low_bits) + 1) - 1
        unary = np.zeros(int(ends[-1]) + 1 if ends.size else 0, np.bool_)
        unary[ends] = True
        packed = np.packbits(unary)
        raw = np.packbits(_to_bits(gaps, low_bits))
        return [bytes((low_bits,)), raw.tobytes(), varint(packed.size), packed.tobytes()]

    def decode(self, cursor: Cursor, count: int, shapes: Sequence[Shape]) -> Places:
        low_bits, size = cursor.byte(), space_size(shapes)
        if low_bits > MAX_RICE_BITS:
            raise DecodeError("too many raw bits", seen=low_bits, expected=f"at most {MAX_RICE_BITS}")
        low = _from_bits(_take_bits(cursor, count * low_bits), count, low_bits)
        length = cursor.varint()
        if length > (count + (size >> low_bits)) // 8 + 1:
            raise DecodeError("a unary part is longer than its space", seen=length)
        ends = np.flatnonzero(np.unpackbits(np.frombuffer(cursor.take(length), np.uint8)))
        if ends.size != count:
            raise DecodeError("another number of positions than announced", seen=ends.size, expected=count)
        return _from_gaps((_gaps(ends) << low_bits) + low, size)


def _gaps(indices: Indices) -> Gaps:
    gaps = np.diff(indices, prepend=-1)
    gaps -= 1
    return gaps


def _from_gaps(gaps: Gaps, size: int) -> Places:
    """The places after these gaps; `gaps` is overwritten."""
    # in float64 first: a hostile sum must not wrap around
    if gaps.size and float(gaps.sum(dtype=np.float64)) + gaps.size > size:
        raise DecodeError("positions run beyond the end", expected=f"below {size}")
    gaps += 1
    indices = np.cumsum(gaps, out=gaps)
    indices -= 1
    return Places.of_indices(indices, size)


def _encode(indices: Indices, exact: int) -> list[Part]:
    symbols = np.empty(indices.size, np.uint8)
    classes: list[list[Gaps]] = [[] for _ in range(MAX_GAP_BITS)]
    for start in range(0, indices.size, CHUNK):
        gaps = _chunk_of_gaps(indices, start)
        chunk = symbols[start : start + CHUNK]
        far = _write_symbols(gaps, exact, chunk)
        for width, at in _classes(chunk, far, exact):
            classes[width].append(gaps[at])
    bits = [_to_bits(gaps, width) for width, chunks in enumerate(classes) for gaps in chunks]
    raw = np.packbits(np.concatenate(bits)).tobytes() if bits else b""
    return [bytes((exact,)), *entropy.pack(symbols), raw]


def _chunk_of_gaps(indices: Indices, start: int) -> Gaps:
    chunk = indices[start : start + CHUNK]
    gaps = np.empty(chunk.size, np.int64)
    np.subtract(chunk[1:], chunk[:-1], out=gaps[1:])
    gaps[0] = chunk[0] - (indices[start - 1] if start else -1)
    gaps -= 1
    return gaps


def _write_symbols(gaps: Gaps, exact: int, symbols: NDArray[np.uint8]) -> Indices:
    """A gap below 2^exact is its own symbol; above, exponent and mantissa of the gap as a float follow on.

    Gives the places of the latter.
    """
    np.copyto(symbols, gaps, casting="unsafe")
    at = np.flatnonzero(gaps >= 1 << exact)
    if at.size:
        floats = gaps[at].astype(np.float64).view(np.int64) >> (52 - MANTISSA_BITS)
        first = (1023 + exact) << MANTISSA_BITS
        symbols[at] = floats - first + (1 << exact)
    return at


def _lowest(exact: int) -> Gaps:
    """The smallest gap of every symbol."""
    octaves = np.arange(exact, MAX_GAP_BITS)[:, None]
    steps = (1 << MANTISSA_BITS) + np.arange(1 << MANTISSA_BITS)
    return np.concatenate([np.arange(1 << exact), (steps << octaves - MANTISSA_BITS).reshape(-1)])[:256]


def _classes(symbols: NDArray[np.uint8], at: Indices, exact: int) -> list[tuple[int, Indices]]:
    """(raw bits, places among the gaps) of each octave beyond the exact ones, whose symbols are at `at`."""
    octaves = (symbols[at].astype(np.intp) - (1 << exact)) >> MANTISSA_BITS
    widths = octaves + (exact - MANTISSA_BITS)
    return [(int(width), at[widths == width]) for width in np.flatnonzero(np.bincount(widths)) if width]


def _add_raw_bits(cursor: Cursor, gaps: Gaps, symbols: NDArray[np.uint8], exact: int) -> None:
    classes = _classes(symbols, np.flatnonzero(symbols >= 1 << exact), exact)
    bits = _take_bits(cursor, sum(width * at.size for width, at in classes))
    start = 0
    for width, at in classes:
        end = start + width * at.size
        gaps[at] += _from_bits(bits[start:end], at.size, width)
        start = end


def _to_bits(values: Gaps, width: int) -> NDArray[np.uint8]:
    """The lowest `width` bits of each value, most significant first [values x width]."""
    big = values.astype(">u8").view(np.uint8).reshape(-1, 8)
    whole = -(-width // 8)
    return np.unpackbits(big[:, 8 - whole :], axis=1)[:, 8 * whole - width :].reshape(-1)


def _from_bits(bits: NDArray[np.uint8], rows: int, width: int) -> Gaps:
    whole = -(-width // 8)
    padded = np.zeros((rows, 8 * whole), np.uint8)
    padded[:, 8 * whole - width :] = bits.reshape(rows, width)
    big = np.zeros((rows, 8), np.uint8)
    big[:, 8 - whole :] = np.packbits(padded, axis=1)
    return big.view(">u8").reshape(-1).astype(np.int64)


def _take_bits(cursor: Cursor, count: int) -> NDArray[np.uint8]:
    packed = np.frombuffer(cursor.take(-(-count // 8)), np.uint8)
    if count % 8 and packed[-1] & (0xFF >> count % 8):
        raise DecodeError("raw bits beyond their end")
    return np.unpackbits(packed, count=count)


def _rice_bits(gaps: Gaps) -> int:
    """The k with the shortest code, near log2 of the mean (Golomb 1966; Kiely 2004)."""
    if not gaps.size:
        return 0
    guess = max(0, int(gaps.mean()).bit_length() - 1)
    near = range(max(0, guess - 1), guess + 2)
    return min(near, key=lambda k: k * gaps.size + int((gaps >> k).sum()))
