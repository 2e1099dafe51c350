"""Running statistics of normalisation layers: merged as what they describe, not as weights.

Means are averaged by examples. The variance of the union is more than the mean of the variances: clients whose means
lie apart add to it. With x_k = mean_k - mean_b, the union's variance is E[var_k + x_k^2] - E[x_k]^2, examples as
weights (law of total variance); both expectations are ordinary means of the fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from fedprune_server.aggregation.fixed import Deltas, Floats
from fedprune_server.aggregation.spaces import Space

VARIANCE = "running_var"
MEAN = "running_mean"


@dataclass(slots=True)
class Statistics:
    """Remembers the means of a layer until its variances come by, right after them."""

    _apart: dict[str, list[Floats]] = field(default_factory=dict)
    _means: dict[str, Floats] = field(default_factory=dict)

    def given(self, space: Space, deltas: Iterator[Deltas]) -> Iterator[Deltas]:
        """The quantities to average in place of the buffer's differences."""
        name = space.spec.name
        if name.endswith(MEAN):
            self._apart[name] = []
        for number, one in enumerate(deltas):
            whole = _whole(one)
            if name.endswith(MEAN):
                self._apart[name].append(whole)
            elif (apart := self._apart.get(mean_of(name))) is not None:
                whole = whole + apart[number] ** 2
            yield replace(one, values=whole, base=None)

    def merged(self, space: Space, mean: Floats) -> Floats:
        """What the buffer moves by, from the mean of the quantities."""
        name = space.spec.name
        if name.endswith(MEAN):
            self._means[name] = mean
        elif mean_of(name) in self._means:
            self._apart.pop(mean_of(name), None)
            mean = mean - self._means.pop(mean_of(name)) ** 2
            # The base and the mean are both rounded: a variance of zero must not come out below it.
            return np.maximum(mean, -space.base.astype(np.float64))
        return mean


def mean_of(name: str) -> str:
    """The name of the mean that belongs to this variance; empty when it is none."""
    return name.removesuffix(VARIANCE) + MEAN if name.endswith(VARIANCE) else ""


def _whole(deltas: Deltas) -> Floats:
    parts = [block.copy() for _, block in deltas.blocks()]
    return np.concatenate(parts) if parts else np.empty(0)
