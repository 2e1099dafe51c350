"""Scales of blocks: one byte each, an eighth of an octave a step below the largest value of the segment.

float16 scales, the usual choice, underflow on updates and take two bytes that Huffman cannot shrink. A byte of
logarithm spans 31 octaves at 4 % coarser steps on average, and costs about half a byte after Huffman.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.codec import entropy
from fedprune.codec.base import Bytes, Cursor, Part
from fedprune.errors import DecodeError, LocalError
from fedprune.mask import Indices

Floats = NDArray[np.float32]
STEPS_PER_OCTAVE = 8
NOTHING = 255  # the scale of a block without values worth sending
HEADROOM = 1 + 2.0**-20  # a scale is this much above the block's largest value: rounding never passes the last level
LARGEST = 2.0**126  # above it the last level could overflow float32
SMALLEST = 2.0**-100  # below it a reciprocal would overflow float32
CHUNK_VALUES = 1 << 14
MIN_BLOCK_BITS, MAX_BLOCK_BITS = 4, 12  # a chunk is some whole blocks
POOL_DRAWS = 1 << 16
ABOVE_ZERO = 128  # codes are made as bytes above zero, and turned to two's complement by their highest bit

# 2^(-i/8), i = 0..7, as float32: written out, so that every machine decodes the same bits.
_EIGHTHS = np.array(
    [0x3F800000, 0x3F6AC0C7, 0x3F5744FD, 0x3F45672A, 0x3F3504F3, 0x3F25FED7, 0x3F1837F0, 0x3F0B95C2], "<u4"
).view("<f4")
# What each code makes of a `top` of 1: exact, since the second factor is a power of two.
_CODES = np.arange(NOTHING)
_BELOW_TOP = np.append(np.ldexp(_EIGHTHS[_CODES % STEPS_PER_OCTAVE], -(_CODES // STEPS_PER_OCTAVE)), np.float32(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Where decoded values belong to some `places` [n] of the flat tensor `target`: they go there while they are still
    in the cache. What is at other places stays."""

    target: Floats
    places: Indices

    @property
    def size(self) -> int:
        """Number of values."""
        return self.places.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """`top`, the scale of the segment, and how far below it each block is [blocks]; blocks start anew with a tensor."""

    top: np.float32
    scale_codes: Bytes
    block_bits: int

    @property
    def block(self) -> int:
        """Values in a block."""
        return 1 << self.block_bits

    @classmethod
    def of(cls, values: Sequence[Floats], names: Sequence[str], block_bits: int) -> Blocks:
        """The scales that fit blocks of 2^`block_bits` values; raises `LocalError` naming the tensor when a value is not finite."""
        peaks = [_peaks(tensor, 1 << block_bits) for tensor in values]
        for peak, name in zip(peaks, names, strict=True):
            check_size(float(peak.max(initial=0.0)), name)
        every = np.concatenate([*peaks, np.empty(0, np.float64)]) * HEADROOM
        top = np.float32(every.max(initial=0.0) * HEADROOM)
        return cls(top=top, scale_codes=_scale_codes(every, float(top)), block_bits=block_bits)

    @property
    def scales(self) -> Floats:
        """The largest value that each block can hold [blocks]."""
        scales: Floats = _BELOW_TOP.take(self.scale_codes)
        scales *= self.top
        return scales

    def parts(self) -> list[Part]:
        """The bytes that travel: `block_bits`, `top` as float32, then a stream of one symbol a block."""
        return [bytes((self.block_bits,)), self.top.astype("<f4").tobytes(), *entropy.pack(self.scale_codes)]

    def codes(self, values: Sequence[Floats], levels: int, dither: Dither) -> NDArray[np.int8]:
        """Integers of -levels to levels: each value in steps of its block's scale over `levels`."""
        scales = self.scales
        steps = np.zeros_like(scales)
        np.divide(np.float32(levels), scales, out=steps, where=scales > 0)
        codes, start = np.empty(sum(tensor.size for tensor in values), np.int8), 0
        scratch = np.empty(CHUNK_VALUES, np.float32)
        dither.prepare(codes.size)
        for tensor in values:
            for at, step in self._chunks(tensor.size, steps):
                chunk = tensor[at].reshape(step.size, -1)
                scaled = np.multiply(chunk, step, out=scratch[: chunk.size].reshape(chunk.shape))
                dither.round(scaled.reshape(-1), codes[start : start + chunk.size])
                start += chunk.size
            steps = steps[-(-tensor.size // self.block) :]
        return codes

    def values(self, codes: NDArray[np.int8], levels: int, outs: Sequence[Floats | Spread]) -> None:
        """Write what `codes` mean into `outs`."""
        steps = self.scales / np.float32(levels)
        scratch = np.empty(CHUNK_VALUES, np.float32)
        for out in outs:
            for at, step in self._chunks(out.size, steps):
                own = codes[at]
                values = scratch[: own.size] if isinstance(out, Spread) else out[at]
                # a cast and a product in place: one operation on two widths is slower than both
                np.copyto(values, own)
                rows = values.reshape(step.size, -1)
                rows *= step
                if isinstance(out, Spread):
                    out.target[out.places[at]] = values
            codes, steps = codes[out.size :], steps[-(-out.size // self.block) :]

    def _chunks(self, size: int, steps: Floats) -> Iterator[tuple[slice, Floats]]:
        """Parts of a tensor of `size` values: whole blocks, whose factors are [blocks, 1]; what is left over as one."""
        whole, per_chunk = size // self.block, CHUNK_VALUES // self.block
        for first in range(0, whole, per_chunk):
            end = min(first + per_chunk, whole)
            yield slice(first * self.block, end * self.block), steps[first:end, None]
        if size % self.block:
            yield slice(whole * self.block, size), steps[whole : whole + 1, None]


def read_blocks(cursor: Cursor, sizes: Sequence[int]) -> Blocks:
    """The scales of tensors of `sizes` values, as `Blocks.parts` wrote them."""
    block_bits = cursor.byte()
    if not MIN_BLOCK_BITS <= block_bits <= MAX_BLOCK_BITS:
        raise DecodeError("no such size of a block", seen=block_bits, expected=f"{MIN_BLOCK_BITS} to {MAX_BLOCK_BITS}")
    top = np.frombuffer(cursor.take(4), "<f4")[0]
    if not 0 <= top <= LARGEST:
        raise DecodeError("a scale is out of bounds", seen=float(top), expected=f"0 to {LARGEST:g}")
    codes = entropy.unpack(cursor, sum(-(-size >> block_bits) for size in sizes))
    return Blocks(top=np.float32(top), scale_codes=codes, block_bits=block_bits)


def check_size(peak: float, name: str) -> None:
    """Raise `LocalError` when a tensor's largest magnitude is not finite, or too large for the codings with loss."""
    if not peak < LARGEST:
        raise LocalError(
            f"tensor {name!r} has values that cannot be quantised",
            seen=peak,
            expected=f"finite and below {LARGEST:g}",
            next_step="Lower the learning rate, or name the tensor in `exact`",
        )


class Dither:
    """What is added to a value before it is cut down to an integer code.

    A half rounds to nearest. A uniform number from a generator rounds up with the probability of the fraction, to
    within 2^-17: unbiased. Numbers are drawn into a pool, and each chunk takes a run of it from a random place, which is
    five times cheaper than a draw a value; every code is unbiased as before, and values are as good as independent.
    """

    def __init__(self, rng: np.random.Generator | None) -> None:
        self.rng = rng
        self._pool = np.empty(0, np.float32)

    def prepare(self, count: int) -> None:
        """Draw what `count` values need, unless it is there: one pool serves all tensors of a frame."""
        wanted = min(count, POOL_DRAWS) // 4 + 1
        if self.rng is not None and self._pool.size < 4 * wanted:
            # four 16-bit numbers out of each 64-bit one
            draws = self.rng.integers(0, np.iinfo(np.uint64).max, wanted, np.uint64, endpoint=True)
            self._pool = draws.astype("<u8", copy=False).view("<u2") * np.float32(2.0**-16)
            self._pool += np.float32(ABOVE_ZERO + 2.0**-17)

    def round(self, values: Floats, codes: NDArray[np.int8]) -> None:
        """Write the codes of `values` [at most `CHUNK_VALUES`], which lie strictly within -128 and 127 and are
        overwritten."""
        if self.rng is None:
            values += np.float32(ABOVE_ZERO + 0.5)
        else:
            start = int(self.rng.integers(0, self._pool.size - values.size, endpoint=True))
            values += self._pool[start : start + values.size]
        # cutting down a positive number is a floor, and a pass cheaper than floor
        above_zero = codes.view(np.uint8)
        np.copyto(above_zero, values, casting="unsafe")
        above_zero ^= ABOVE_ZERO


def _peaks(tensor: Floats, block: int) -> Floats:
    """The largest magnitude of every block, NaN where there is one."""
    peaks = np.empty(-(-tensor.size // block), np.float32)
    for start in range(0, tensor.size, CHUNK_VALUES):
        chunk = np.abs(tensor[start : start + CHUNK_VALUES])
        first = start // block
        starts = np.arange(0, chunk.size, block)
        np.maximum.reduceat(chunk, starts, out=peaks[first : first + starts.size])
    return peaks


def _scale_codes(peaks: NDArray[np.float64], top: float) -> NDArray[np.uint8]:
    """The largest step below `top` that still covers each peak."""
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.floor(STEPS_PER_OCTAVE * np.log2(top / peaks))
    worth = (peaks > SMALLEST) & (steps < NOTHING)
    return np.where(worth, steps, NOTHING).astype(np.uint8)
