"""Streams of byte symbols, as small as Huffman makes them.

zstd serves as the Huffman coder: with its match finder turned down it codes literals only, at about 1 GB/s in and
1.4 to 2 GB/s out, and any zstd decoder can read the result. A stream is cut into blocks so that a decoder never
holds more than one of them beside its output, and each block takes the smallest of three modes.
"""

from __future__ import annotations

import threading
from enum import IntEnum

import numpy as np
import zstandard

from fedprune.codec.base import Bytes, Cursor, Part, varint
from fedprune.errors import DecodeError

BLOCK_SYMBOLS = 1 << 17  # what one zstd block holds: a frame then has one Huffman table
MIN_HUFFMAN_SYMBOLS = 32  # below this a zstd frame's own header is more than it saves
SAMPLE_SYMBOLS = 1 << 11
SAMPLE_FROM_SYMBOLS = 1 << 14
# The share of pairs that are alike is 1/256 of random bytes; below this at most 0.13 bits of 8 could be saved, which
# zstd does not take. It is four standard deviations of the sample above 1/256.
NOISE_ALIKE = 1.05 / 256

_PARAMETERS = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, window_log=17, write_content_size=True
)


class Mode(IntEnum):
    """How one block is coded."""

    RAW = 0
    HUFFMAN = 1
    CONSTANT = 2


class _Coders(threading.local):
    """zstd contexts are costly to make and not shareable between threads: one pair a thread."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_PARAMETERS)
        self.decompressor = zstandard.ZstdDecompressor()


_coders = _Coders()


def pack(symbols: Bytes) -> list[Part]:
    """The stream of `symbols` [n], as parts to be joined; they may be views of it. Its length is not in it."""
    parts: list[Part] = []
    for start in range(0, symbols.size, BLOCK_SYMBOLS):
        parts += _pack_block(symbols[start : start + BLOCK_SYMBOLS])
    return parts


def _pack_block(block: Bytes) -> list[Part]:
    if block.size > 1 and block[0] == block[-1] and bool((block == block[0]).all()):
        return [bytes((Mode.CONSTANT, int(block[0])))]
    if block.size >= MIN_HUFFMAN_SYMBOLS and not _is_noise(block):
        coded = _coders.compressor.compress(block.data)
        head = bytes((Mode.HUFFMAN,)) + varint(len(coded))
        if len(head) + len(coded) <= block.size:
            return [head, coded]
    return [bytes((Mode.RAW,)), block.data]


def _is_noise(block: Bytes) -> bool:
    """Whether a sample shows that Huffman has nothing to gain: two symbols of the block are alike hardly more often than
    two random bytes are. Mantissas are, and zstd would take as long to find out as to code what shrinks."""
    if block.size < SAMPLE_FROM_SYMBOLS:
        return False
    counts = np.bincount(block[:: block.size // SAMPLE_SYMBOLS], minlength=256)
    size = int(counts.sum())
    return int(np.dot(counts, counts)) - size < NOISE_ALIKE * size * (size - 1)


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
    if mode == Mode.CONSTANT:
        return np.full(count, cursor.byte(), np.uint8)
    if mode == Mode.HUFFMAN:
        return np.frombuffer(_inflate(cursor.take(cursor.varint()), count), np.uint8)
    raise DecodeError("no such block mode", seen=mode, expected=[m.value for m in Mode])


def _inflate(coded: memoryview, size: int) -> bytes:
    # zstandard ignores max_output_size when the frame declares its size: so the declaration is checked first.
    try:
        frame = zstandard.get_frame_parameters(coded)
        if frame.content_size != size:
            raise DecodeError("a zstd frame declares another size", seen=frame.content_size, expected=size)
        if frame.dict_id or frame.window_size > BLOCK_SYMBOLS:
            raise DecodeError("a zstd frame wants a dictionary or a larger window", seen=frame.window_size)
        data = _coders.decompressor.decompress(coded, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError("a zstd frame is broken", seen=str(error)) from error
    if len(data) != size:
        raise DecodeError("a zstd frame has another size", seen=len(data), expected=size)
    return data
