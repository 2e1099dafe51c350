"""Federated averaging, exactly (McMahan et al., 2017), for one mask and for many.

With one mask the next weights are w + rate sum_k n_k d_k / sum_k n_k. Where masks differ, every weight is divided by
the examples of its holders, never by the total, and a weight that nobody holds stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedprune.errors import LocalError
from fedprune.mask import Mask
from fedprune.tensor import Schema
from fedprune_server.aggregation.aggregators import Combined
from fedprune_server.aggregation.fixed import Deltas, Floats, Partial, Scale
from fedprune_server.aggregation.inputs import Arrays, FoldInput
from fedprune_server.aggregation.spaces import Space


@dataclass(frozen=True, slots=True)
class Mean:
    """The example-weighted mean over the holders of each weight."""

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Sequence[FoldInput]:
        """Everyone counts."""
        return updates

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """Sum exactly, then divide once."""
        partial = Partial.empty(Scale.of(space.spec, space.base), space.size)
        for one in deltas:
            partial.add(one, space.spec.name)
        covered = None if isinstance(partial.weights, int) else partial.weights > 0
        return Combined(mean=partial.mean(), covered=covered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Go `rate` of the way that the mean points; remembers nothing."""

    rate: float = 1.0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise LocalError("the aggregation rate must be above 0", seen=self.rate)

    def step(self, combined: Combined, state: dict[str, Floats]) -> Floats:
        """`rate` times the mean, in its own memory."""
        if self.rate != 1.0:
            combined.mean.__imul__(self.rate)
        return combined.mean
