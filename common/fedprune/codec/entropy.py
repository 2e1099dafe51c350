"""Streams of byte symbols, as small as Huffman makes them.

A stream is cut into blocks so that a decoder never holds more than one of them beside its output, and each block takes
the mode that a sample of it promises most of, or stays as it is.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

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


def pack(symbols: Bytes) -> list[Part]:
    """The stream of `symbols` [n], as parts to be joined; they may be views of it. Its length is not in it."""
    parts: list[Part] = []
    for start in range(0, symbols.size, BLOCK_SYMBOLS):
        block = symbols[start : start + BLOCK_SYMBOLS]
        parts += shrink(block) or [bytes((Mode.RAW,)), block.data]
    return parts


def shrink(block: Bytes) -> list[Part]:
    """One block in any mode but raw; empty where raw, which takes a byte beside the symbols, is as short."""
    if block.size > 1 and block[0] == block[-1] and bool((block == block[0]).all()):
        return [bytes((Mode.CONSTANT, int(block[0])))]
    if block.size < SAMPLE_FROM_SYMBOLS:
        coded = _huffman(block) if block.size >= MIN_SYMBOLS else []
    else:
        coded = _shrink_long(block)
    return coded if length(coded) <= block.size else []


def _shrink_long(block: Bytes) -> list[Part]:
    # to floats and machine words first: numpy multiplies and counts nothing else at full speed
    sample = block[:: block.size // SAMPLE_SYMBOLS].astype(np.intp)
    counts, size = np.bincount(sample, minlength=256).astype(np.float64), sample.size
    if float(counts @ counts) - size < NOISE_ALIKE * size * (size - 1):
        return []
    if block.size >= PAIRS_FROM_SYMBOLS and counts.max() <= PAIRS_TOP_SHARE * size:
        sums = np.concatenate((counts, counts[:FAR])).cumsum()
        windows = sums[FAR:] - sums[:256]  # of the 15 symbols behind each one
        before = int(windows.argmax())
        if windows[before] >= PAIRS_SHARE * size:
            return [bytes((Mode.PAIRS,)), *pack_pairs(block, (before + 1) % 256)]
    coded = _huffman(block)
    if length(coded) <= block.size or nibble_bits(counts) > HALVES_BITS:
        return coded
    return [bytes((Mode.HALVES,)), *pack_halves(block)]


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
