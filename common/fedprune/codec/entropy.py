"""Streams of byte symbols, as small as Huffman makes them.

A stream is cut into blocks so that a decoder never holds more than one of them beside its output, and each block takes
the mode that a sample of it promises most of, or stays as it is.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedprune.codec.base import Bytes, Cursor, Part, length, varint
from fedprune.codec.huffman import MAX_SYMBOLS, MIN_SYMBOLS, inflate, squeeze
from fedprune.codec.nibbles import FAR, nibble_bits, pack_halves, pack_pairs, unpack_halves, unpack_pairs
from fedprune.errors import DecodeError

BLOCK_SYMBOLS = MAX_SYMBOLS
SAMPLE_SYMBOLS = 1 << 11
SAMPLE_FROM_SYMBOLS = 1 << 14
# The share of pairs that are alike is 1/256 of random bytes; below this at most 0.13 bits of 8 could be saved, for which
# no coding is worth its time. It is four standard deviations of the sample above 1/256.
NOISE_ALIKE = 1.05 / 256
# Pairs want most symbols near each other; a table of up to 241 entries must pay; and where one symbol is nearly all,
# matches are better.
PAIRS_SHARE = 0.93
PAIRS_FROM_SYMBOLS = 1 << 15
PAIRS_TOP_SHARE = 0.8
HALVES_BITS = 7.88  # of 8: above it, halves save less than a percent for the time of three codings


class Mode(IntEnum):
    """How one block is coded."""

    RAW = 0
    HUFFMAN = 1
    CONSTANT = 2
    PAIRS = 3
    HALVES = 4


class Outlook(NamedTuple):
    """What a sample of many blocks says of every one of them: that it stays as it is (`RAW`), or that its symbols lie
    near above `lowest` (`PAIRS`). None: each block is looked at by itself."""

    mode: Mode | None = None
    lowest: int = 0


UNKNOWN = Outlook()


def outlook(sample: Bytes) -> Outlook:
    """What to expect of blocks of which `sample` [some thousand symbols] was taken here and there."""
    counts = _counts(sample)
    if _is_noise(counts):
        return Outlook(Mode.RAW)
    lowest = _narrow(counts)
    return UNKNOWN if lowest is None else Outlook(Mode.PAIRS, lowest)


def pack(symbols: Bytes) -> list[Part]:
    """The stream of `symbols` [n], as parts to be joined; they may be views of it. Its length is not in it."""
    parts: list[Part] = []
    for start in range(0, symbols.size, BLOCK_SYMBOLS):
        block = symbols[start : start + BLOCK_SYMBOLS]
        parts += shrink(block) or [bytes((Mode.RAW,)), block.data]
    return parts


def shrink(block: Bytes, expected: Outlook = UNKNOWN) -> list[Part]:
    """One block in any mode but raw; empty where raw, which takes a byte beside the symbols, is as short."""
    if expected.mode is Mode.RAW:
        return []
    coded: list[Part] = []
    if expected.mode is Mode.PAIRS:
        coded = _pairs(block, expected.lowest)
    elif block.size > 1 and block[0] == block[-1] and bool((block == block[0]).all()):
        return [bytes((Mode.CONSTANT, int(block[0])))]
    if not coded and block.size >= SAMPLE_FROM_SYMBOLS:
        coded = _shrink_long(block)
    elif not coded and block.size >= MIN_SYMBOLS:
        coded = _huffman(block)
    return coded if length(coded) <= block.size else []


def _shrink_long(block: Bytes) -> list[Part]:
    counts = _counts(block[:: block.size // SAMPLE_SYMBOLS])
    if _is_noise(counts):
        return []
    lowest = _narrow(counts) if block.size >= PAIRS_FROM_SYMBOLS else None
    if lowest is not None:
        return [bytes((Mode.PAIRS,)), *pack_pairs(block, lowest)[0]]
    coded = _huffman(block)
    if length(coded) <= block.size or nibble_bits(counts) > HALVES_BITS:
        return coded
    return [bytes((Mode.HALVES,)), *pack_halves(block)]


def _counts(sample: Bytes) -> NDArray[np.float64]:
    """How often each symbol is there [256]."""
    # to machine words first, and to floats: numpy counts and multiplies nothing else at full speed
    return np.bincount(sample.astype(np.intp), minlength=256).astype(np.float64)


def _is_noise(counts: NDArray[np.float64]) -> bool:
    size = float(counts.sum())
    return float(counts @ counts) - size < NOISE_ALIKE * size * (size - 1)


def _narrow(counts: NDArray[np.float64]) -> int | None:
    """Above which symbol most of them lie near each other, None where they do not."""
    size = counts.sum()
    if counts.max() > PAIRS_TOP_SHARE * size:
        return None
    sums = np.concatenate((counts, counts[:FAR])).cumsum()
    windows = sums[FAR:] - sums[:256]  # of the 15 symbols behind each one
    before = int(windows.argmax())
    return (before + 1) % 256 if windows[before] >= PAIRS_SHARE * size else None


def _pairs(block: Bytes, lowest: int) -> list[Part]:
    """As pairs; empty where more of this block lies far away than was foreseen."""
    parts, far = pack_pairs(block, lowest)
    return [bytes((Mode.PAIRS,)), *parts] if far <= 2 * (1 - PAIRS_SHARE) * block.size else []


def _huffman(block: Bytes) -> list[Part]:
    coded = squeeze(block)
    return [bytes((Mode.HUFFMAN,)) + varint(len(coded)), coded]


def unpack(cursor: Cursor, count: int) -> Bytes:
    """Read a stream of `count` symbols, perhaps as a view of the frame; raise `DecodeError` when it is none."""
    if count <= BLOCK_SYMBOLS:
        return _unpack_block(cursor, count) if count else np.empty(0, np.uint8)
    out = np.empty(count, np.uint8)
    for start in range(0, count, BLOCK_SYMBOLS):
        block = out[start : start + BLOCK_SYMBOLS]
        block[:] = _unpack_block(cursor, block.size)
    return out


def _unpack_block(cursor: Cursor, count: int) -> Bytes:
    mode = cursor.byte()
    if mode == Mode.RAW:
        return np.frombuffer(cursor.take(count), np.uint8)
    if mode == Mode.HUFFMAN:
        return inflate(cursor.take(cursor.varint()), count)
    if mode == Mode.PAIRS:
        return unpack_pairs(cursor, count)
    if mode == Mode.CONSTANT:
        return np.full(count, cursor.byte(), np.uint8)
    if mode == Mode.HALVES:
        return unpack_halves(cursor, count)
    raise DecodeError("no such block mode", seen=mode, expected=[m.value for m in Mode])
