"""Blocks of symbols coded by their nibbles: where Huffman over whole bytes is slow, or blind.

`pairs` is for symbols of a narrow range, such as exponents: two go into a byte. There are half as many for Huffman, none
loses a fraction of a bit by itself, and the short matches disappear that zstd would stop at. `halves` is for symbols so
nearly alike in number that zstd does not try (its most frequent one must be above 1/128): the high nibbles still shrink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedprune.codec.base import Bytes, Cursor, Part
from fedprune.codec.huffman import framed, unframed
from fedprune.errors import DecodeError

FAR = 15  # how far above the lowest a symbol is that follows by itself
LOW_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
FOUR = np.uint64(4)


def pack_pairs(block: Bytes, lowest: int) -> tuple[list[Part], int]:
    """Distances above `lowest`, two to a byte; those of `FAR` and more come after all others, and are counted."""
    nibbles, half = _two_rows(block.size), -(-block.size // 2)
    np.subtract(block[:half], np.uint8(lowest), out=nibbles[0, :half])
    np.subtract(block[half:], np.uint8(lowest), out=nibbles[1, : block.size - half])
    far = _cut_far(nibbles)
    symbols = _joined(nibbles)[:half]
    return [bytes((lowest,)), *framed(symbols, symbols), *(framed(far, far) if far.size else [])], far.size


def unpack_pairs(cursor: Cursor, count: int) -> Bytes:
    """The block of `count` symbols that `pack_pairs` wrote."""
    lowest, half = cursor.byte(), -(-count // 2)
    symbols = _parted(unframed(cursor, half, half)[0], count)
    far = np.flatnonzero(symbols == FAR)
    if far.size:
        symbols[far] = unframed(cursor, far.size, far.size)[0]
    symbols += np.uint8(lowest)
    return symbols


def nibble_bits(counts: NDArray[np.float64]) -> float:
    """Order-0 entropy of the high and the low nibble of symbols together, in bits; `counts` [256] is above 0 in sum."""
    square = counts.reshape(16, 16) / counts.sum()
    shares = np.concatenate((square.sum(axis=0), square.sum(axis=1)))
    return -float(shares @ np.log2(np.maximum(shares, np.finfo(np.float64).tiny)))


def pack_halves(block: Bytes) -> list[Part]:
    """The high nibbles, then the low ones: each one to a byte through Huffman, or two to a byte."""
    parts: list[Part] = []
    for plane in (_shifted(block), block & np.uint8(15)):
        half = -(-plane.size // 2)
        rows = _two_rows(plane.size)
        rows[0, :half], rows[1, : plane.size - half] = plane[:half], plane[half:]
        parts += framed(plane, _joined(rows)[:half])
    return parts


def unpack_halves(cursor: Cursor, count: int) -> Bytes:
    """The block of `count` symbols that `pack_halves` wrote."""
    high, low = _read_plane(cursor, count), _read_plane(cursor, count)
    return np.asarray(high * np.uint8(16) + low)


def _read_plane(cursor: Cursor, count: int) -> Bytes:
    data, is_huffman = unframed(cursor, count, -(-count // 2))
    if not is_huffman:
        return _parted(data, count)
    if int(data.max(initial=0)) > 15:
        raise DecodeError("a nibble of more than four bits", seen=int(data.max()))
    return data


def _two_rows(count: int) -> Bytes:
    """Zeros [2, at least half of `count`], whose rows are whole 64-bit words."""
    return np.zeros((2, (count + 15) // 16 * 8), np.uint8)


def _joined(rows: Bytes) -> Bytes:
    """Nibbles of both rows in one byte, the first in the low half. Eight are shifted at once: none reaches its neighbour."""
    words = rows.view("<u8")
    words[1] <<= FOUR
    words[0] |= words[1]
    first: Bytes = rows[0]
    return first


def _parted(pairs: Bytes, count: int) -> Bytes:
    """The nibbles [count] of `_joined`; new memory."""
    nibbles, half = np.empty(count, np.uint8), -(-count // 2)
    np.bitwise_and(pairs, np.uint8(15), out=nibbles[:half])
    np.right_shift(pairs[: count - half], np.uint8(4), out=nibbles[half:])
    return nibbles


def _shifted(block: Bytes) -> Bytes:
    rows = np.zeros(-(-block.size // 8) * 8, np.uint8)
    rows[: block.size] = block
    words = rows.view("<u8")
    words >>= FOUR
    words &= LOW_NIBBLES
    return rows[: block.size]


def _cut_far(nibbles: Bytes) -> Bytes:
    """The symbols that are no nibbles, in order; `FAR` takes their place."""
    is_far = nibbles >= FAR
    # places and `take`, not boolean indexing, and setting bits, not a minimum: several times faster
    far = nibbles.reshape(-1).take(np.flatnonzero(is_far))
    if far.size:
        nibbles |= np.negative(is_far.view(np.uint8))
        nibbles &= FAR
    return far
