"""Robust rules that look at every weight on its own: trimmed mean and median (Yin et al., 2018).

Both ignore the number of examples, because a client that lies about its weights can lie about them too. Where masks
differ, a weight's holders vote and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.tensor import Schema
from fedprune_server.aggregation.aggregators import Choice, Combined
from fedprune_server.aggregation.columns import blocks, in_order, mixed, whole
from fedprune_server.aggregation.fixed import Deltas, Floats, Scale
from fedprune_server.aggregation.inputs import Arrays, FoldInput
from fedprune_server.aggregation.spaces import Space
from fedprune_server.aggregation.vectors import nearest, unlikeness


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimmedMean:
    """The mean of a weight's differences without the `trim` share (rounded up) at either end.

    A share of 0.5 leaves the middle one, or the middle two: the median. With `attackers` above 0, the share of updates
    that may be hostile, each update is first replaced by the mean of the n - f most like it (`unlikeness`), itself
    among them, f = ceil(share n): what honest clients differ in, which the middle alone is pulled about by, evens out
    (Allouah et al., 2023, who take plain distance).
    """

    trim: float = 0.2
    attackers: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.attackers < 0.5:
            raise LocalError("cannot stand that share of attackers", seen=self.attackers, expected="below 0.5")
        if not 0 < self.trim <= 0.5:
            raise LocalError("cannot trim that share at either end", seen=self.trim, expected="above 0, at most 0.5")

    def choose(self, schema: Schema, base: Arrays, mask: Mask, updates: Sequence[FoldInput]) -> Choice:
        """Everyone has a voice, at every weight anew."""
        if not self.attackers:
            return Choice(updates=updates)
        hostile = min(ceil(self.attackers * len(updates)), (len(updates) - 1) // 2)
        groups = nearest(unlikeness(schema, base, mask, updates), [u.party for u in updates], hostile)
        return Choice(updates=[replace(one, nearest=group) for one, group in zip(updates, groups, strict=True)])

    def combine(self, space: Space, deltas: Iterator[Deltas]) -> Combined:
        """Sort each weight's differences, and take the mean of the middle."""
        scale = Scale.of(space.spec, space.base)
        updates = []
        for one in deltas:
            one.check(scale, space.spec.name)
            updates.append(whole(one, space.size))
        groups = [one.nearest for one in updates]
        mean, held = np.zeros(space.size), np.zeros(space.size, np.bool_)
        for part, matrix in blocks(updates, space.size):
            mean[part], held[part] = self._middle(in_order(mixed(matrix, groups) if all(groups) else matrix))
        return Combined(mean=mean, covered=None if held.all() else held)

    def _middle(self, rows: Floats) -> tuple[Floats, Bits]:
        holders = np.count_nonzero(~np.isnan(rows), axis=1)
        cut = np.minimum(np.ceil(self.trim * holders).astype(np.intp), np.maximum(holders - 1, 0) // 2)
        total = np.zeros(len(rows))
        # One column after the other: a sum in ascending order, the same for every order of arrival.
        for column in range(rows.shape[1]):
            inside = (column >= cut) & (column < holders - cut)
            np.add(total, rows[:, column], out=total, where=inside)
        return total / np.maximum(holders - 2 * cut, 1), holders > 0
