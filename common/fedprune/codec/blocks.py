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
CHUNK_VALUES = 1 << 15
MIN_BLOCK_BITS, MAX_BLOCK_BITS = 4, 12  # a chunk is some whole blocks
POOL_DRAWS = 1 << 16
LARGEST_DRAW = (1 << 64) - 1
ABOVE_ZERO = 128  # codes are made as bytes above zero, and turned to two's complement by their highest bit

# 2^(-i/8), i = 0..7, as float32: written out, so that every machine decodes the same bits.
_EIGHTHS = np.array(
    [0x3F800000, 0x3F6AC0C7, 0x3F5744FD, 0x3F45672A, 0x3F3504F3, 0x3F25FED7, 0x3F1837F0, 0x3F0B95C2], "<u4"
).view("<f4")
# What each code makes of a `top` of 1: exact, since the second factor is a power of two.
_CODES = np.arange(NOTHING)
_BELOW_TOP = np.append(np.ldexp(_EIGHTHS[_CODES % STEPS_PER_OCTAVE], -(_CODES // STEPS_PER_OCTAVE)), np.float32(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """`top`, the scale of the segment, and how far below it each block is [blocks].

    Tensors lie end to end, and each begins with a new block: block i is of `sizes[i]` values, which are 2^`block_bits`
    but for the last of a tensor.
    """

    top: np.float32
    scale_codes: Bytes
    block_bits: int
    sizes: Indices

    @classmethod
    def of(cls, values: Floats, ends: Sequence[int], names: Sequence[str], block_bits: int) -> Blocks:
        """The scales that fit blocks of 2^`block_bits` values; raises `LocalError` naming the tensor when a value is not finite."""
        sizes = _sizes(ends, block_bits)
        peaks = _peaks(values, sizes, block_bits)
        if not peaks.max(initial=0.0) < LARGEST:
            bad = int(np.argmin(peaks < LARGEST))
            check_size(float(peaks[bad]), names[int(np.searchsorted(ends, sizes[:bad].sum(), side="right"))])
        peaks *= HEADROOM
        top = np.float32(peaks.max(initial=0.0) * HEADROOM)
        return cls(top=top, scale_codes=_scale_codes(peaks, float(top)), block_bits=block_bits, sizes=sizes)

    @property
    def scales(self) -> Floats:
        """The largest value that each block can hold [blocks]."""
        scales: Floats = _BELOW_TOP.take(self.scale_codes)
        scales *= self.top
        return scales

    def parts(self) -> list[Part]:
        """The bytes that travel: `block_bits`, `top` as float32, then a stream of one symbol a block."""
        return [bytes((self.block_bits,)), self.top.astype("<f4").tobytes(), *entropy.pack(self.scale_codes)]

    def codes(self, values: Floats, levels: int, dither: Dither) -> NDArray[np.int8]:
        """Integers of -levels to levels: each value in steps of its block's scale over `levels`."""
        scales, codes = self.scales, np.empty(values.size, np.int8)
        steps = np.zeros_like(scales)
        np.divide(np.float32(levels), scales, out=steps, where=scales > 0)
        runs = dither.runs(values.size, -(-scales.size // (CHUNK_VALUES >> self.block_bits)))
        for (at, factors), run in zip(self._factors(steps), runs, strict=True):
            factors *= values[at]
            dither.round(factors, codes[at], run)
        return codes

    def values(self, codes: NDArray[np.int8], levels: int, out: Floats) -> None:
        """Write what `codes` [n] mean into `out` [n]."""
        for at, factors in self._factors(self.scales / np.float32(levels)):
            own = out[at]
            # a cast and a product in place: one operation on two widths is slower than both
            np.copyto(own, codes[at])
            own *= factors

    def _factors(self, steps: Floats) -> Iterator[tuple[slice, Floats]]:
        """Parts of the segment, at most `CHUNK_VALUES` long, and the step of each value in them."""
        start = 0
        for own in _chunks(self.sizes.size, self.block_bits):
            factors = steps[own].repeat(self.sizes[own])
            yield slice(start, start + factors.size), factors
            start += factors.size


def _sizes(ends: Sequence[int], block_bits: int) -> Indices:
    """How many values each block of tensors has that stop at `ends` [blocks]."""
    if len(ends) == 1:
        sizes = np.empty(-(-ends[0] >> block_bits), np.intp)
        sizes.fill(1 << block_bits)
        sizes[-1:] -= (sizes.size << block_bits) - ends[0]
        return sizes
    counts = np.array(ends)
    counts[1:] -= counts[:-1].copy()
    counts = counts[counts > 0]
    blocks = -(-counts >> block_bits)
    sizes = np.full(int(blocks.sum()), 1 << block_bits)
    sizes[blocks.cumsum() - 1] += counts - (blocks << block_bits)
    return sizes


def _chunks(blocks: int, block_bits: int) -> Iterator[slice]:
    """The numbers of `blocks`, some at a time that have at most `CHUNK_VALUES` values together."""
    per_chunk = CHUNK_VALUES >> block_bits
    for first in range(0, blocks, per_chunk):
        yield slice(first, first + per_chunk)


def read_blocks(cursor: Cursor, ends: Sequence[int]) -> Blocks:
    """The scales of tensors that lie end to end and stop at `ends`, as `Blocks.parts` wrote them."""
    block_bits = cursor.byte()
    if not MIN_BLOCK_BITS <= block_bits <= MAX_BLOCK_BITS:
        raise DecodeError("no such size of a block", seen=block_bits, expected=f"{MIN_BLOCK_BITS} to {MAX_BLOCK_BITS}")
    top = np.frombuffer(cursor.take(4), "<f4")[0]
    if not 0 <= top <= LARGEST:
        raise DecodeError("a scale is out of bounds", seen=float(top), expected=f"0 to {LARGEST:g}")
    sizes = _sizes(ends, block_bits)
    codes = entropy.unpack(cursor, sizes.size)
    return Blocks(top=np.float32(top), scale_codes=codes, block_bits=block_bits, sizes=sizes)


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

    def runs(self, count: int, chunks: int) -> list[int]:
        """Where in the pool the run of each of `chunks` begins, that are `count` values together.

        One pool serves all tensors of a frame: it is drawn where it is not yet long enough.
        """
        if self.rng is None:
            return [0] * chunks
        wanted = min(count, POOL_DRAWS) // 4 + 1
        if self._pool.size < 4 * wanted:
            # four 16-bit numbers out of each 64-bit one
            draws = self.rng.integers(0, LARGEST_DRAW, wanted, np.uint64, endpoint=True)
            self._pool = draws.astype("<u8", copy=False).view("<u2") * np.float32(2.0**-16)
            self._pool += np.float32(ABOVE_ZERO + 2.0**-17)
        last = self._pool.size - min(count, CHUNK_VALUES)
        runs: list[int] = self.rng.integers(0, last, chunks, endpoint=True).tolist()
        return runs

    def round(self, values: Floats, codes: NDArray[np.int8], run: int) -> None:
        """Write the codes of `values` [at most `CHUNK_VALUES`], which lie strictly within -128 and 127 and are
        overwritten; `run` is one of `runs`."""
        values += np.float32(ABOVE_ZERO + 0.5) if self.rng is None else self._pool[run : run + values.size]
        # cutting down a positive number is a floor, and a pass cheaper than floor
        above_zero = codes.view(np.uint8)
        np.copyto(above_zero, values, casting="unsafe")
        above_zero ^= ABOVE_ZERO


def _peaks(values: Floats, sizes: Indices, block_bits: int) -> NDArray[np.float64]:
    """The largest magnitude of every block [blocks], NaN where there is one."""
    peaks, scratch, start = np.empty(sizes.size), np.empty(CHUNK_VALUES, np.float32), 0
    for own in _chunks(sizes.size, block_bits):
        ends = sizes[own].cumsum()
        end = start + int(ends[-1])
        magnitudes = np.abs(values[start:end], out=scratch[: end - start])
        peaks[own] = np.maximum.reduceat(magnitudes, ends - sizes[own])
        start = end
    return peaks


def _scale_codes(peaks: NDArray[np.float64], top: float) -> NDArray[np.uint8]:
    """The largest step below `top` that still covers each peak; `NOTHING` for the smallest peaks."""
    ratios = np.full(peaks.size, np.inf)
    np.divide(top, peaks, out=ratios, where=peaks > SMALLEST)
    steps: NDArray[np.float64] = np.minimum(STEPS_PER_OCTAVE * np.log2(ratios), NOTHING)
    # a number that is not negative is cut down to its floor
    return steps.astype(np.uint8)
