"""What a budget may never take away.

A layer that loses its last weight cuts the network in two, and a unit without input or output is a constant that
costs rows and columns for nothing. So each row and each column that is alive keeps at least one weight, and each
layer a few more. Floors do not veto a step: the budget gives way to them, weight by weight, and the step says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Bits
from fedprune.tensor import Schema

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """The least a layer keeps: max(`weights`, `share` of its size), as far as it has them, and, with `connect`, one
    weight for each row (output unit) and each column (input unit) that is alive."""

    weights: int = 16
    share: float = 0.005
    connect: bool = True

    def __post_init__(self) -> None:
        if self.weights < 0:
            raise LocalError("pruning.floor is out of range", seen=self.weights, expected="0 weights or more")
        if not 0.0 <= self.share <= 1.0:
            raise LocalError("pruning.floor_share is out of range", seen=self.share, expected="a share from 0 to 1")

    def of_layer(self, size: int) -> int:
        """Least number of weights a layer of `size` weights keeps, rows and columns aside."""
        return min(size, max(self.weights, ceil(self.share * size)))

    def least(self, schema: Schema) -> int:
        """A lower bound on what the floors hold in a full mask: a weight can serve one row and one column at once."""
        total = 0
        for spec in schema.prunable:
            rows, columns, _ = units(spec.shape)
            lines = max(rows, columns) if self.connect and len(spec.shape) > 1 else 0
            total += min(spec.size, max(self.of_layer(spec.size), lines))
        return total


def units(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(rows, columns, weights per pair) of a tensor: [out, in, kernel...]. A column is an input unit, a whole input
    channel of a convolution. Tensors of fewer than two dimensions have one row."""
    if len(shape) < 2:
        return 1, prod(shape), 1
    return shape[0], shape[1], prod(shape[2:])


def held_units(scores: Scores, alive: Bits) -> Bits:
    """The weights that keep the rows and columns of one layer alive, as bits of the tensor's shape.

    `scores` is -inf wherever `alive` is not. The best weight of every row comes first, then the best of every column
    that has none yet; ties go to the lower position.
    """
    bits = np.zeros(alive.size, np.bool_)
    if alive.ndim > 1 and alive.size:
        _hold_rows(bits, scores, alive)
        _hold_columns(bits, scores, alive)
    return bits.reshape(alive.shape)


def _hold_rows(bits: Bits, scores: Scores, alive: Bits) -> None:
    rows = alive.shape[0]
    width = alive.size // rows
    lines = np.flatnonzero(alive.reshape(rows, width).any(axis=1))
    bits[lines * width + scores.reshape(rows, width).argmax(axis=1)[lines]] = True


def _hold_columns(bits: Bits, scores: Scores, alive: Bits) -> None:
    rows, columns, inner = units(alive.shape)
    covered = bits.reshape(rows, columns, inner).any(axis=(0, 2))
    lines = np.flatnonzero(alive.reshape(rows, columns, inner).any(axis=(0, 2)) & ~covered)
    if not lines.size:
        return
    best = scores.reshape(rows, columns, inner)[:, lines].transpose(1, 0, 2).reshape(lines.size, -1).argmax(axis=1)
    row, place = np.divmod(best, inner)
    bits[(row * columns + lines) * inner + place] = True


def top(scores: Scores, count: int) -> Bits:
    """The `count` largest of flat `scores` as bits; of equal ones those at the lower positions."""
    if count <= 0:
        return np.zeros(scores.size, np.bool_)
    if count >= scores.size:
        return np.ones(scores.size, np.bool_)
    place = scores.size - count
    threshold = np.partition(scores, place)[place]
    bits: Bits = np.greater(scores, threshold)
    ties = np.flatnonzero(scores == threshold)
    bits[ties[: count - int(np.count_nonzero(bits))]] = True
    return bits
