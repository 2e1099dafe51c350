"""Values within a stated error: small floats, integers in blocks with a scale, signs with one scale.

Every coding works tensor by tensor inside a segment, so that no scale is shared between tensors, and refuses what is
not finite with the tensor's name. Decoded values are a pure function of the bytes, the same bits on every machine:
scales are float32 products of a number that travels and one of eight constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import frexp
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.arrays import split
from fedprune.codec.base import Array, Content, Cursor, Part, Values
from fedprune.codec.blocks import CHUNK_VALUES, Blocks, Dither, check_size, read_blocks
from fedprune.codec.planes import BLOCK_VALUES, pack_planes, unpack_planes
from fedprune.codec.room import Room
from fedprune.codec.values import CODINGS as LOSSLESS
from fedprune.errors import DecodeError

Floats = NDArray[np.float32]
Parts = tuple[list[Part], list[Part]]

HALF = np.dtype("<u2")
MAX_SHIFT = 126  # 2^126 and its reciprocal are both normal float32
TERNARY_PER_BYTE = 5
TERNARY_THRESHOLD = 0.7  # of the mean magnitude: near the best three levels for weights (Li et al. 2016, eq. 6)


class LossyCoding(Protocol):
    """`values` [n]: the float32 tensors of a segment, which lie end to end and stop at `ends`; scales and symbols are
    counted apart. Names are for messages;
    `dither` rounds; `content` (weights or their difference) says how values vary from place to place."""

    def encode(
        self, values: Floats, ends: Sequence[int], names: Sequence[str], dither: Dither, room: Room, content: Content
    ) -> Parts: ...

    def decode(self, scales: Cursor, body: Cursor, out: Floats, ends: Sequence[int]) -> None: ...


class Float16:
    """float16 of the values times a power of two, which keeps the largest below 2^15: no subnormals in updates."""

    def encode(
        self, values: Floats, ends: Sequence[int], names: Sequence[str], dither: Dither, room: Room, content: Content
    ) -> Parts:
        scales: list[Part] = []
        room.restart(_halves_bound(values, ends))
        for tensor, name in zip(split(values, ends), names, strict=True):
            shift = min(15 - frexp(_largest(tensor, name))[1], MAX_SHIFT)
            scales.append(shift.to_bytes(1, "little", signed=True))
            for block in _blocks_of(tensor):
                pack_planes(room, (block * np.float32(2.0**shift)).astype("<f2").view("<u2"), rotated=True)
        return scales, [room.written]

    def decode(self, scales: Cursor, body: Cursor, out: Floats, ends: Sequence[int]) -> None:
        for tensor in split(out, ends):
            shift = int.from_bytes(scales.take(1), "little", signed=True)
            if not -MAX_SHIFT <= shift <= MAX_SHIFT:
                raise DecodeError("a power of two is out of bounds", seen=shift, expected=f"at most {MAX_SHIFT}")
            for block in _blocks_of(tensor):
                words = np.empty(block.size, HALF)
                unpack_planes(body, words, rotated=True)
                with np.errstate(over="ignore", invalid="ignore"):
                    np.multiply(words.view("<f2"), np.float32(2.0**-shift), out=block)
                _check_finite(block)


class BFloat16:
    """The upper half of a float32, rounded to nearest, ties to even; or stochastically."""

    def encode(
        self, values: Floats, ends: Sequence[int], names: Sequence[str], dither: Dither, room: Room, content: Content
    ) -> Parts:
        room.restart(_halves_bound(values, ends))
        for tensor, name in zip(split(values, ends), names, strict=True):
            _largest(tensor, name)
            for block in _blocks_of(tensor):
                words = block.view("<u4")
                low = (
                    (words >> 16 & 1) + 0x7FFF
                    if dither.rng is None
                    else dither.rng.integers(0, 1 << 16, words.size, np.uint32)
                )
                pack_planes(room, (words + low >> 16).astype("<u2"), rotated=True)
        return [], [room.written]

    def decode(self, scales: Cursor, body: Cursor, out: Floats, ends: Sequence[int]) -> None:
        for tensor in split(out, ends):
            for block in _blocks_of(tensor):
                words = np.empty(block.size, HALF)
                unpack_planes(body, words, rotated=True)
                np.left_shift(words, 16, out=block.view("<u4"), dtype=np.uint32)
                _check_finite(block)


class Int8:
    """Codes of -127 to 127 in blocks with a scale each.

    Neighbouring weights are of one size, and a block of 512 costs a twentieth more error than one of 128 for 1.5 % fewer
    bytes; rows of an update are not, and there the error of 512 would be a fifth larger.
    """

    block_bits: ClassVar = {Content.WEIGHTS: 9, Content.DELTA: 7}
    levels = 127

    def encode(
        self, values: Floats, ends: Sequence[int], names: Sequence[str], dither: Dither, room: Room, content: Content
    ) -> Parts:
        blocks = Blocks.of(values, ends, names, self.block_bits[content])
        codes = blocks.codes(values, self.levels, dither)
        return blocks.parts(), entropy.pack(self._symbols(codes))

    def decode(self, scales: Cursor, body: Cursor, out: Floats, ends: Sequence[int]) -> None:
        read_blocks(scales, ends).values(self._codes(body, out.size), self.levels, out)

    def _symbols(self, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        return codes.view(np.uint8)

    def _codes(self, body: Cursor, count: int) -> NDArray[np.int8]:
        return entropy.unpack(body, count).view(np.int8)


class Int4(Int8):
    """Codes of -7 to 7 in blocks of 32; two to a byte, the first in the low half, before Huffman sees them."""

    block_bits: ClassVar = {Content.WEIGHTS: 5, Content.DELTA: 5}
    levels = 7

    def _symbols(self, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        pairs = np.append(codes, np.int8(0)).view("<u2") if codes.size % 2 else codes.view("<u2")
        # words, not every other byte: several times faster
        second = pairs >> np.uint16(4)
        second &= np.uint16(0xF0)
        second |= pairs & np.uint16(0x0F)
        return second.astype(np.uint8)

    def _codes(self, body: Cursor, count: int) -> NDArray[np.int8]:
        symbols = entropy.unpack(body, -(-count // 2))
        codes = np.empty(2 * symbols.size, np.int8)
        codes[::2] = symbols.view(np.int8) << 4
        codes[1::2] = symbols.view(np.int8)
        codes >>= 4
        return codes[:count]


class Ternary:
    """Minus, zero or plus one scale for each tensor: the largest magnitude when rounded stochastically (TernGrad,
    Wen et al. 2017), else the mean of what is above the threshold."""

    def encode(
        self, values: Floats, ends: Sequence[int], names: Sequence[str], dither: Dither, room: Room, content: Content
    ) -> Parts:
        scales: list[Part] = []
        codes = [np.empty(0, np.int8)]
        for tensor, name in zip(split(values, ends), names, strict=True):
            top = np.float32(_largest(tensor, name))
            if dither.rng is None:
                sizes = np.abs(tensor)
                kept = sizes > TERNARY_THRESHOLD * (sizes.mean() if sizes.size else 0)
                top = np.float32(sizes[kept].mean()) if kept.any() else np.float32(0)
                codes.append(np.where(kept, np.sign(tensor), 0).astype(np.int8))
            else:
                shrink = np.float32(top or 1)
                codes.append(np.empty(tensor.size, np.int8))
                starts = range(0, tensor.size, CHUNK_VALUES)
                for at, run in zip(starts, dither.runs(tensor.size, len(starts)), strict=True):
                    dither.round(tensor[at : at + CHUNK_VALUES] / shrink, codes[-1][at : at + CHUNK_VALUES], run)
                codes[-1].clip(-1, 1, out=codes[-1])
            scales.append(top.astype("<f4").tobytes())
        return scales, entropy.pack(_fives(np.concatenate(codes)))

    def decode(self, scales: Cursor, body: Cursor, out: Floats, ends: Sequence[int]) -> None:
        tops = np.frombuffer(scales.take(4 * len(ends)), "<f4")
        _check_finite(tops)
        symbols = entropy.unpack(body, -(-out.size // TERNARY_PER_BYTE))
        codes = split(_from_fives(symbols)[: out.size], ends)
        for own, tensor, top in zip(codes, split(out, ends), tops, strict=True):
            np.multiply(own, top, out=tensor)


def _halves_bound(values: Floats, ends: Sequence[int]) -> int:
    """The most bytes that two planes of every value take."""
    return 2 * values.size + 2 * sum(-(-tensor.size // BLOCK_VALUES) for tensor in split(values, ends))


def floats(values: Array) -> Floats:
    """The same memory as float32, which it is: only tensors of that dtype get here."""
    return values.view("<f4")


def _largest(values: Floats, name: str) -> float:
    """The largest magnitude, 0 for none; raises `LocalError` when a value is not finite."""
    top = float(np.maximum(values.max(initial=0), -values.min(initial=0)))
    check_size(top, name)
    return top


def _blocks_of(values: Floats) -> Iterator[Floats]:
    """Views of at most `BLOCK_VALUES` values."""
    for start in range(0, values.size, BLOCK_VALUES):
        yield values[start : start + BLOCK_VALUES]


def _check_finite(values: Floats) -> None:
    if not bool(np.isfinite(values).all()):
        raise DecodeError("a value is not finite where none can be")


def _fives(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    digits = np.ones(-(-codes.size // TERNARY_PER_BYTE) * TERNARY_PER_BYTE, np.uint8)
    digits[: codes.size] = (codes + 1).view(np.uint8)
    rows = digits.reshape(-1, TERNARY_PER_BYTE)
    symbols = rows[:, 0].copy()
    for place in range(1, TERNARY_PER_BYTE):
        symbols += rows[:, place] * np.uint8(3**place)
    return symbols


def _from_fives(symbols: NDArray[np.uint8]) -> NDArray[np.int8]:
    if symbols.size and int(symbols.max()) >= 3**TERNARY_PER_BYTE:
        raise DecodeError("five signs that are none", seen=int(symbols.max()))
    places = 3 ** np.arange(TERNARY_PER_BYTE)
    table = (np.arange(3**TERNARY_PER_BYTE)[:, None] // places % 3 - 1).astype(np.int8)
    return table.take(symbols, axis=0).reshape(-1)


CODINGS: dict[Values, LossyCoding] = {
    Values.FLOAT16: Float16(),
    Values.BFLOAT16: BFloat16(),
    Values.INT8: Int8(),
    Values.INT4: Int4(),
    Values.TERNARY: Ternary(),
}
assert set(CODINGS) | set(LOSSLESS) == set(Values) - {Values.NONE}, "a value coding without code"
