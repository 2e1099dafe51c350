"""Federated averaging, exactly (McMahan et al., 2017), for one mask and for many.

With one mask the next weights are w + rate sum_k n_k d_k / sum_k n_k. Where masks differ, every weight is divided by
the examples of its holders, never by the total, and a weight that nobody holds stays where it is. Damping shortens the
step of a weight that few examples stand behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.pruning.votes import damping
from fedprune.tensor import Schema
from fedprune_server.aggregation.aggregators import Choice, Combined
from fedprune_server.aggregation.fixed import Deltas, Partial, Scale
from fedprune_server.aggregation.inputs import Arrays, FoldInput
from fedprune_server.aggregation.spaces import Space


@dataclass(frozen=True, slots=True)
class Mean:
    """The example-weighted mean over the holders of each weight, times min(1, A_j / (`damping` sum n)) where the holders
    of weight j have A_j of the round's n examples; 0 does not damp."""

    damping: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.damping <= 1.0:
            raise LocalError("no such damping", seen=self.damping, expected="a share of the examples, 0 to 1")

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Choice:
        """Everyone counts."""
        return Choice(updates=updates)

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """Sum exactly, then divide once."""
        partial = self.empty(space)
        total = 0
        for one in deltas:
            partial.add(one, space.spec.name)
            total += one.examples
        return self.of(partial, total)

    @staticmethod
    def empty(space: Space) -> Partial:
        """The sum of no differences."""
        return Partial.empty(Scale.of(space.spec, space.base), space.size)

    def of(self, partial: Partial, total: int) -> Combined:
        """The mean of the differences in a sum over `total` examples; the sum is used up."""
        if isinstance(partial.weights, int):
            return Combined(mean=partial.mean())
        coverage = np.array(partial.weights)
        mean = partial.mean()
        if self.damping:
            mean *= damping(coverage, total, self.damping)
        return Combined(mean=mean, covered=coverage > 0)
