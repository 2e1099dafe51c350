"""Federated averaging, exactly (McMahan et al., 2017), for one mask and for many.

With one mask the next weights are w + rate sum_k n_k d_k / sum_k n_k. Where masks differ, every weight is divided by
the examples of its holders, never by the total, and a weight that nobody holds stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedprune.mask import Mask
from fedprune.tensor import Schema
from fedprune_server.aggregation.aggregators import Choice, Combined
from fedprune_server.aggregation.fixed import Deltas, Partial, Scale
from fedprune_server.aggregation.inputs import Arrays, FoldInput
from fedprune_server.aggregation.spaces import Space


@dataclass(frozen=True, slots=True)
class Mean:
    """The example-weighted mean over the holders of each weight."""

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Choice:
        """Everyone counts."""
        return Choice(updates=updates)

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """Sum exactly, then divide once."""
        partial = Partial.empty(Scale.of(space.spec, space.base), space.size)
        for one in deltas:
            partial.add(one, space.spec.name)
        covered = None if isinstance(partial.weights, int) else partial.weights > 0
        return Combined(mean=partial.mean(), covered=covered)
