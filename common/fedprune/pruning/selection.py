"""From scores and a budget to the next mask: nested, exact to the weight, the same on every machine.

A budget is a list of shares: each names some layers and says how much they keep together. One share over all layers
is the global rank; one for each layer is a uniform or an ERK budget; an override is a share of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.pruning.floors import Floors, Scores
from fedprune.pruning.plan import keep_count
from fedprune.pruning.ranking import Line, rank, rank_within_cost
from fedprune.pruning.scores import magnitudes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecision:
    """Why a layer looks as it does: alive weights before and after; the lowest `score` that was kept without help
    (`threshold`; None when only floors kept anything); how many are alive only because a floor holds them, being below
    the threshold (`floor_trimmed`; all, without a threshold); and how many of `after` are newly `grown`."""

    name: str
    before: int
    after: int
    threshold: float | None
    score: str
    floor_trimmed: int
    grown: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The next mask and, layer by layer, how it came about."""

    mask: Mask
    layers: tuple[LayerDecision, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The layers `names` keep `keep` weights together, by one rank over them."""

    names: tuple[str, ...]
    keep: int

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise LocalError(f"a budget for {', '.join(self.names)} is below nothing", seen=self.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostShare:
    """All layers keep what together costs at most `budget`, ranked by score per cost; `cost[name]` is the cost of one
    weight of that layer, in the budget's unit (multiply-adds: H_out W_out for a convolution)."""

    cost: Mapping[str, float]
    budget: float

    def __post_init__(self) -> None:
        free = [name for name, cost in self.cost.items() if not cost > 0]
        if free:
            raise LocalError(f"a weight of {free[0]!r} must cost something", seen=self.cost[free[0]])


def select(
    scores: Mapping[str, Scores],
    mask: Mask,
    budget: int | Sequence[Share] | CostShare,
    floors: Floors,
    version: int,
    *,
    score: str,
) -> Selection:
    """Of the weights alive in `mask` keep those with the largest `scores`, as many as `budget` says, under `floors`.

    `scores[name]` has the tensor's shape. The new mask lies within the old one; ties go to the earlier tensor and the
    lower position. More than the budget stays alive only where the floors hold more; less only where less was alive.
    """
    names = tuple(mask.alive)
    if isinstance(budget, CostShare):
        lines, thresholds = _select_by_cost(scores, mask, budget, floors)
    else:
        shares = (Share(names=names, keep=budget),) if isinstance(budget, int) else budget
        _check_cover(names, shares)
        lines = {name: Line.of(scores[name], mask.alive[name], floors) for name in names}
        thresholds = {n: t for s in shares for n, t in _rank_share(lines, s).items()}
    layers = tuple(_decision(name, lines[name], thresholds[name], score) for name in names)
    alive = {name: lines[name].kept(mask.alive[name]) for name in names}
    return Selection(mask=Mask(schema=mask.schema, version=version, alive=alive), layers=layers)


def magnitude_mask(
    weights: Mapping[str, NDArray[np.generic]], mask: Mask, density: float, floors: Floors, version: int
) -> Mask:
    """`mask` brought to `density` of the prunable weights by one global rank of |w|, under `floors`.

    Gradual magnitude pruning with nested masks (Zhu & Gupta 2017). Raises `LocalError` for weights not finite."""
    keep = keep_count(density, mask.size)
    return select(magnitudes(mask.schema, weights), mask, keep, floors, version, score="magnitude").mask


def with_grown(layer: LayerDecision, grown: Bits) -> LayerDecision:
    """The decision for a layer that also takes on the weights `grown` (bits), dead before."""
    count = int(np.count_nonzero(grown))
    return replace(layer, after=layer.after + count, grown=layer.grown + count)


def _select_by_cost(
    scores: Mapping[str, Scores], mask: Mask, budget: CostShare, floors: Floors
) -> tuple[dict[str, Line], dict[str, float | None]]:
    lines = {
        name: Line.of(scores[name] / np.float32(budget.cost[name]), bits, floors) for name, bits in mask.alive.items()
    }
    threshold = rank_within_cost(tuple(lines.values()), [budget.cost[name] for name in lines], budget.budget)
    return lines, dict.fromkeys(lines, threshold)


def _rank_share(lines: Mapping[str, Line], share: Share) -> dict[str, float | None]:
    return dict.fromkeys(share.names, rank([lines[name] for name in share.names], share.keep))


def _check_cover(names: tuple[str, ...], shares: Sequence[Share]) -> None:
    named = [name for share in shares for name in share.names]
    if sorted(named) != sorted(names):
        raise LocalError("a budget names each prunable layer once", seen=named, expected=list(names))


def _decision(name: str, line: Line, threshold: float | None, score: str) -> LayerDecision:
    return LayerDecision(
        name=name,
        before=line.scores.size,
        after=int(np.count_nonzero(line.keep)),
        threshold=threshold,
        score=score,
        floor_trimmed=line.held_below(threshold),
    )
