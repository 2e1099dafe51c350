"""From scores and a budget to the next mask: nested, exact to the weight, the same on every machine.

The floors' weights are taken first, at an infinite score; the rest of the budget goes to the largest scores. A weight
that the floors hold but the ranking would have dropped therefore displaces the weakest one that no floor holds, and
the budget is met to the weight as long as the floors leave room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.pruning.floors import Floors, Scores, held_units, top
from fedprune.pruning.plan import keep_count
from fedprune.pruning.scores import magnitude
from fedprune.tensor import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecision:
    """Why a layer looks as it does: alive weights before and after, the lowest `score` that was kept without help
    (`threshold`; None when only floors kept anything), and how many weights the floors kept against the ranking."""

    name: str
    before: int
    after: int
    threshold: float | None
    score: str
    floor_trimmed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The next mask and, layer by layer, how it came about."""

    mask: Mask
    layers: tuple[LayerDecision, ...]


def select(
    scores: Mapping[str, Scores], mask: Mask, keep: int, floors: Floors, version: int, *, score: str
) -> Selection:
    """Keep `keep` of the weights alive in `mask`: those with the largest `scores`, under `floors`.

    `scores[name]` has the tensor's shape. The new mask lies within the old one; ties go to the earlier tensor and the
    lower position. More than `keep` stay alive only where the floors hold more; fewer only where fewer were alive.
    """
    lines = [_Line.of(scores[t.name], mask.alive[t.name], floors) for t in mask.schema.prunable]
    threshold = _rank(lines, min(keep, mask.alive_count))
    alive = {t.name: line.kept(mask.alive[t.name]) for t, line in zip(mask.schema.prunable, lines, strict=True)}
    layers = tuple(
        LayerDecision(
            name=name,
            before=line.scores.size,
            after=int(np.count_nonzero(line.keep)),
            threshold=threshold,
            score=score,
            floor_trimmed=line.against_rank(threshold),
        )
        for name, line in zip(alive, lines, strict=True)
    )
    return Selection(mask=Mask(schema=mask.schema, version=version, alive=alive), layers=layers)


def magnitude_mask(
    weights: Mapping[str, NDArray[np.generic]], mask: Mask, density: float, floors: Floors, version: int
) -> Mask:
    """`mask` brought to `density` of the prunable weights by one global rank of |w|, under `floors`.

    Gradual magnitude pruning with nested masks (Zhu & Gupta 2017). Raises `LocalError` for weights not finite."""
    keep = keep_count(density, mask.size)
    return select(magnitudes(mask.schema, weights), mask, keep, floors, version, score="magnitude").mask


def magnitudes(schema: Schema, weights: Mapping[str, NDArray[np.generic]]) -> dict[str, Scores]:
    """|w| of every prunable tensor."""
    return {t.name: magnitude(t, weights[t.name]) for t in schema.prunable}


@dataclass(slots=True, kw_only=True)
class _Line:
    """A layer while it is ranked, its alive weights only, in order: scores [nnz], and as bits [nnz] those that the
    floors hold and those that are to be kept. `floor` is the least number of them."""

    scores: Scores
    held: Bits
    keep: Bits
    floor: int

    @classmethod
    def of(cls, scores: Scores, alive: Bits, floors: Floors) -> _Line:
        if scores.shape != alive.shape:
            raise LocalError("scores do not fit their tensor", seen=list(scores.shape), expected=list(alive.shape))
        whole = bool(alive.all())
        ranked = scores if whole else np.where(alive, scores, np.float32(-np.inf))
        held = held_units(ranked, alive) if floors.connect else np.zeros(alive.shape, np.bool_)
        line, bits = (ranked.reshape(-1), held.reshape(-1)) if whole else (scores[alive], held[alive])
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

    def against_rank(self, threshold: float | None) -> int:
        """How many weights are held that the ranking would have dropped."""
        scores = self.scores[self.held]
        return int(scores.size if threshold is None else np.count_nonzero(scores < threshold))


def _rank(lines: list[_Line], keep: int) -> float | None:
    """Fill in what each line keeps, by one rank over all; give the lowest score kept that no floor holds.

    A layer's floor is held only once the rank has left the layer below it. That raises the threshold for the others,
    never lowers it, so no layer is held in vain and the loop ends after as many turns as there are layers."""
    while True:
        threshold = _rank_once(lines, keep)
        below = [line for line in lines if np.count_nonzero(line.keep) < line.floor]
        if not below:
            return threshold
        for line in below:
            line.hold_floor()


def _rank_once(lines: list[_Line], keep: int) -> float | None:
    if not lines:
        return None
    held = np.concatenate([line.held for line in lines])
    scores = np.concatenate([line.scores for line in lines])
    scores[held] = np.inf
    bits = top(scores, max(keep, int(np.count_nonzero(held))))
    ends = np.cumsum([line.scores.size for line in lines])[:-1]
    for line, part in zip(lines, np.split(bits, ends), strict=True):
        line.keep = part
    scores[~bits] = np.inf
    lowest = float(scores.min(initial=np.inf))
    return lowest if np.isfinite(lowest) else None
