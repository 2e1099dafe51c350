"""Sums that come out the same in any order: fixed point, split into limbs of 24 bits.

Floating-point addition depends on order; integer addition does not. A difference d becomes q = rint(d 2^t), and n q,
for n examples, is summed. As long as no sum can pass 2^53, float64 holds these whole numbers exactly and adds them
fastest. What goes beyond is cut into signed digits of 24 bits, each of which is added to an int64 limb of its own: with
n < 2^24 examples an update and at most 2^14 updates no limb can overflow. So a `Partial` is exact: partials merge in any
order and any grouping, to the same bits.

t is a function of the weights of version b alone. Tensors with two dimensions or more get two limbs: |d| below 2^12
times the largest weight (and at least 2^12) in steps of 2^-35 of it. Vectors (biases, norms) and running statistics
cost nothing and can move by any amount in a round: they get five.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import frexp, ldexp

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError, UpdateError
from fedprune.mask import Indices
from fedprune.tensor import Role, TensorSpec

Floats = NDArray[np.float64]
Array = NDArray[np.generic]

LIMB_BITS = 24
MAX_EXAMPLES = (1 << 24) - 1
MAX_UPDATES = 1 << 14
# A quarter of a megabyte of float64: the passes over a block stay in the cache of a core.
BLOCK = 1 << 15
# Up to here float64 holds every whole number.
EXACT = float(1 << 53)

NARROW_LIMBS = 2
NARROW_HEADROOM_BITS = 12
WIDE_LIMBS = 5
WIDE_BITS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a tensor's differences become integers: q = rint(d 2^`bits`), |q| < 2^(24 `limbs` - 1)."""

    limbs: int
    bits: int

    @classmethod
    def of(cls, spec: TensorSpec, base: Array) -> Scale:
        """The scale of a tensor whose values at version b are `base` [n]."""
        if spec.role is Role.BUFFER or len(spec.shape) < 2:
            return cls(limbs=WIDE_LIMBS, bits=WIDE_BITS)
        largest = max(float(base.max()), -float(base.min())) if base.size else 0.0
        exponent = max(0, frexp(largest)[1]) + NARROW_HEADROOM_BITS
        return cls(limbs=NARROW_LIMBS, bits=LIMB_BITS * NARROW_LIMBS - 1 - exponent)

    @property
    def limit(self) -> float:
        """What |q| stays below."""
        return ldexp(1.0, LIMB_BITS * self.limbs - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deltas:
    """One update's differences of one tensor: (`values` - `base`) `factor`, as far as they are known.

    `values` [k] are numbers of any float dtype; without `base` [k] they are differences already. They belong to the
    places `positions` [k] of the tensor's space, ascending, or to all of it. `holders` are the places that this
    client's mask has alive, None for all; the differences at the ones that are not in `positions` are zero. `nearest` is
    that of the `FoldInput`.
    """

    values: Array
    base: Array | None = None
    factor: float = 1.0
    positions: Indices | None = None
    holders: Indices | None = None
    examples: int = 1
    party: str = "an update"
    nearest: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.examples <= MAX_EXAMPLES:
            raise UpdateError(
                "cannot weigh this update", party=self.party, seen=f"{self.examples} examples", expected="1 to 2^24 - 1"
            )

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """The differences in float64, block by block; each block's memory is used again for the next."""
        buffer, other = np.empty(min(BLOCK, self.values.size)), np.empty(min(BLOCK, self.values.size))
        for start in range(0, self.values.size, BLOCK):
            part = slice(start, min(start + BLOCK, self.values.size))
            block = buffer[: part.stop - start]
            np.copyto(block, self.values[part], casting="unsafe")
            if self.base is not None:
                # Converting first and subtracting then is faster than a mixed subtraction, and as exact.
                known = other[: block.size]
                np.copyto(known, self.base[part], casting="unsafe")
                block -= known
            if self.factor != 1.0:
                block *= self.factor
            yield part, block

    def at(self, part: slice) -> Floats:
        """The differences of a slice, of an update that is known at every place."""
        values = self.values[part].astype(np.float64)
        if self.base is not None:
            values -= self.base[part].astype(np.float64)
        return values if self.factor == 1.0 else values * self.factor

    def check(self, scale: Scale, name: str) -> None:
        """Raise `UpdateError` when a difference is not finite or too large for `scale`."""
        for _ in self.quantised(scale, name):
            pass

    def quantised(self, scale: Scale, name: str) -> Iterator[tuple[slice, Floats, float]]:
        """q of `Scale`, still as float64, and the largest |q|, block by block. Raises `UpdateError` when one is not
        finite or too large."""
        step, limit = ldexp(1.0, scale.bits), scale.limit
        for part, block in self.blocks():
            block *= step
            np.rint(block, out=block)
            largest = max(block.max(), -block.min())
            if not largest < limit:
                raise self._refused(name, largest / step, limit / step)
            yield part, block, float(largest)

    def _refused(self, name: str, largest: float, limit: float) -> UpdateError:
        if not np.isfinite(largest):
            return UpdateError(
                f"update is not finite in tensor {name!r}",
                party=self.party,
                next_step="Lower the learning rate, or look for broken examples",
            )
        return UpdateError(
            f"tensor {name!r} moved too far in one round",
            party=self.party,
            seen=f"{largest:.3g}",
            expected=f"below {limit:.3g}",
            next_step="Lower the learning rate, or look for broken examples",
        )


@dataclass(slots=True, kw_only=True)
class Partial:
    """Exact sums over some updates of one tensor with `size` places, in units of 2^-t.

    The sum is `recent` [size], whole numbers of at most `bound` each, plus the `limbs`, of which `limbs[i]` [size] counts
    in 2^(24 i); there are none as long as `recent` holds everything. `weights` is the number of examples behind every
    place, or an array [size] once holders differ; `count` is the number of updates.
    """

    scale: Scale
    size: int
    recent: Floats
    bound: float = 0.0
    limbs: list[NDArray[np.int64]] = field(default_factory=list)
    weights: int | NDArray[np.int64] = 0
    count: int = 0

    @classmethod
    def empty(cls, scale: Scale, size: int) -> Partial:
        """The sum over no updates."""
        return cls(scale=scale, size=size, recent=np.zeros(size))

    def add(self, deltas: Deltas, name: str) -> None:
        """Count one update in; where it raises `UpdateError`, the partial is spoilt."""
        self._count(1)
        most = 0.0
        for part, block, largest in deltas.quantised(self.scale, name):
            target = part if deltas.positions is None else deltas.positions[part]
            bound = largest * deltas.examples
            if bound > EXACT:
                self._add_digits(target, block, deltas.examples)
                continue
            if self.bound + bound > EXACT:
                self._pour()
                most = 0.0
            block *= deltas.examples
            self.recent[target] += block
            most = max(most, bound)
        self.bound += most
        self._weigh(deltas)

    def _pour(self) -> None:
        """Bring what is recent into the limbs."""
        for start in range(0, self.size, BLOCK):
            part = slice(start, min(start + BLOCK, self.size))
            self._add_digits(part, self.recent[part], 1)
        self.recent[:] = 0.0
        self.bound = 0.0

    def _add_digits(self, target: slice | Indices, block: Floats, examples: int) -> None:
        """Add a block to the limbs; it is used up."""
        if not self.limbs:
            self.limbs = [np.zeros(self.size, np.int64) for _ in range(self.scale.limbs)]
        for i in reversed(range(len(self.limbs))):
            unit = ldexp(1.0, LIMB_BITS * i)
            digit = np.trunc(block * (1 / unit))
            block -= digit * unit
            self.limbs[i][target] += digit.astype(np.int64) * examples

    def _weigh(self, deltas: Deltas) -> None:
        if deltas.holders is None:
            self.weights = self.weights + deltas.examples
            return
        if isinstance(self.weights, int):
            self.weights = np.full(self.size, self.weights, np.int64)
        self.weights[deltas.holders] += deltas.examples

    def _count(self, more: int) -> None:
        self.count += more
        if self.count > MAX_UPDATES:
            raise LocalError("more updates than can be summed exactly", seen=self.count, expected=MAX_UPDATES)

    def merge(self, other: Partial) -> None:
        """Count another partial of the same tensor and version in."""
        if (self.scale, self.size) != (other.scale, other.size):
            raise LocalError("partials of different tensors or versions", seen=other.scale, expected=self.scale)
        self._count(other.count)
        if self.bound + other.bound > EXACT:
            self._pour()
        self.recent += other.recent
        self.bound += other.bound
        if not self.limbs:
            self.limbs = [np.zeros_like(limb) for limb in other.limbs]
        for mine, theirs in zip(self.limbs, other.limbs, strict=False):  # the other may have none
            mine += theirs
        self.weights = self.weights + other.weights

    def mean(self) -> Floats:
        """Sum over weights [size], zero where nobody holds a place. The partial is used up: its memory is the
        result's."""
        if self.limbs:
            self._pour()
        for start in range(0, self.size, BLOCK):
            part = slice(start, min(start + BLOCK, self.size))
            total = self.recent[part]
            if self.limbs:
                total[:] = self._total([limb[part] for limb in self.limbs])
            else:
                total *= ldexp(1.0, -self.scale.bits)
            total /= max(self.weights, 1) if isinstance(self.weights, int) else np.maximum(self.weights[part], 1)
        return self.recent

    def _total(self, limbs: list[NDArray[np.int64]]) -> Floats:
        """The value of limbs, each brought to 24 bits first so that nothing is lost between them."""
        half = 1 << (LIMB_BITS - 1)
        for low, high in pairwise(limbs):
            carry = (low + half) >> LIMB_BITS
            high += carry
            low -= carry << LIMB_BITS
        total = np.zeros(limbs[0].size)
        for i in reversed(range(len(limbs))):
            total += limbs[i] * ldexp(1.0, LIMB_BITS * i - self.scale.bits)
        return total
