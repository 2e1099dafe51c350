"""One rank over some layers, under floors: the engine below every rule that says how many survive.

The floors' weights are taken first, at an infinite score; the rest of the budget goes to the largest scores. A weight
that the floors hold but the ranking would have dropped therefore displaces the weakest one that no floor holds, and
the budget is met to the weight as long as the floors leave room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Bits
from fedprune.pruning.floors import Floors, Scores, held_units, top


@dataclass(slots=True, kw_only=True)
class Line:
    """A layer while it is ranked, its alive weights only, in order: scores [nnz], and as bits [nnz] those that the
    floors hold and those that are to be kept. `floor` is the least number of them."""

    scores: Scores
    held: Bits
    keep: Bits
    floor: int

    @classmethod
    def of(cls, scores: Scores, alive: Bits, floors: Floors) -> Line:
        """From `scores` and `alive` of the tensor's shape. Raises `LocalError` where the shapes differ or an alive
        weight has no finite score."""
        if scores.shape != alive.shape:
            raise LocalError("scores do not fit their tensor", seen=list(scores.shape), expected=list(alive.shape))
        whole = bool(alive.all())
        ranked = scores if whole else np.where(alive, scores, np.float32(-np.inf))
        held = held_units(ranked, alive) if floors.connect else np.zeros(alive.shape, np.bool_)
        line, bits = (ranked.reshape(-1), held.reshape(-1)) if whole else (scores[alive], held[alive])
        if not np.isfinite(line).all():
            raise LocalError("a score is not finite", expected="finite float32 scores")
        return cls(scores=line, held=bits, keep=bits, floor=min(line.size, floors.of_layer(alive.size)))

    def hold_floor(self) -> None:
        """Hold the best of the rest until the layer's floor is met."""
        rest = np.where(self.held, np.float32(-np.inf), self.scores)
        self.held = self.held | top(rest, self.floor - int(np.count_nonzero(self.held)))

    def kept(self, alive: Bits) -> Bits:
        """What is kept, as bits of the tensor's shape."""
        bits = np.zeros(alive.shape, np.bool_)
        bits[alive] = self.keep
        return bits

    def held_below(self, threshold: float | None) -> int:
        """How many of the held weights lie below the threshold; all of them where there is none."""
        scores = self.scores[self.held]
        return int(scores.size if threshold is None else np.count_nonzero(scores < threshold))


Take = Callable[[Scores, int], Bits]
"""(scores [n], how many of them are held at infinity) -> the bits to keep [n]."""


def rank(lines: Sequence[Line], keep: int) -> float | None:
    """Fill in what each line keeps: the `keep` largest over all of them, or as many as the floors hold.

    Gives the lowest score kept that no floor holds, None when only floors kept anything."""
    return _rank(lines, lambda scores, held: top(scores, max(keep, held)))


def rank_within_cost(lines: Sequence[Line], costs: Sequence[float], budget: float) -> float | None:
    """The same, but keep as many of the largest scores as together cost at most `budget`, line i costing `costs[i]`
    a weight. The scores should already be per cost."""
    each = np.repeat(np.asarray(costs, np.float64), [line.scores.size for line in lines])

    def take(scores: Scores, held: int) -> Bits:
        order = np.argsort(-scores, kind="stable")
        count = max(held, int(np.searchsorted(np.cumsum(each[order]), budget, side="right")))
        bits = np.zeros(scores.size, np.bool_)
        bits[order[:count]] = True
        return bits

    return _rank(lines, take)


def _rank(lines: Sequence[Line], take: Take) -> float | None:
    # A layer's floor is held only once the rank has left the layer below it. That raises the threshold for the
    # others, never lowers it, so no layer is held in vain and the loop ends after as many turns as there are layers.
    while True:
        threshold = _rank_once(lines, take)
        below = [line for line in lines if np.count_nonzero(line.keep) < line.floor]
        if not below:
            return threshold
        for line in below:
            line.hold_floor()


def _rank_once(lines: Sequence[Line], take: Take) -> float | None:
    if not lines:
        return None
    held: Bits = np.concatenate([line.held for line in lines])
    scores: NDArray[np.float32] = np.concatenate([line.scores for line in lines])
    scores[held] = np.inf
    bits = take(scores, int(np.count_nonzero(held)))
    ends = np.cumsum([line.scores.size for line in lines])[:-1]
    for line, part in zip(lines, np.split(bits, ends), strict=True):
        line.keep = part
    scores[~bits] = np.inf
    lowest = float(scores.min(initial=np.inf))
    return lowest if np.isfinite(lowest) else None
