"""How a budget is spread over layers: one rank for all, evenly, or by the shape of each (ERK).

The two matrices of a recurrent layer are ranked by themselves even where the others share one rank: what comes from the
input and what comes from the step before are of different size, and one would be emptied for the other.

Whole numbers of weights come out, and they add up to the budget: what rounding leaves goes to the largest remainders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.pruning.plan import SPREADS, keep_count
from fedprune.pruning.selection import Share
from fedprune.tensor import Schema, TensorSpec

Counts = NDArray[np.int64]
# As torch names them, in layers and in cells.
RECURRENT = re.compile(r"(^|\.)weight_(ih|hh)(_l\d+(_reverse)?)?$")


def erk_factor(spec: TensorSpec) -> float:
    """(sum of the dimensions) / (product of them): the density a layer gets for epsilon = 1.

    Erdos-Renyi for matrices (Mocanu et al. 2018), with kernel sizes for convolutions (Evci et al. 2020, RigL)."""
    return sum(spec.shape) / spec.size if spec.size else 0.0


def apportion(keep: int, quotas: NDArray[np.float64], caps: Counts) -> Counts:
    """Whole numbers near `quotas`, none above its cap, that add up to `keep` (largest remainders first; of equal ones
    the earlier layer)."""
    if keep > int(caps.sum()):
        raise LocalError("a budget larger than the layers it is for", seen=keep, expected=f"at most {int(caps.sum())}")
    counts = np.minimum(np.floor(quotas + 1e-9).astype(np.int64), caps)
    order = np.argsort(-(quotas - counts), kind="stable")
    while (left := keep - int(counts.sum())) > 0:
        room = [i for i in order if counts[i] < caps[i]]
        counts[room[:left]] += 1
    return counts


def uniform_counts(keep: int, specs: tuple[TensorSpec, ...]) -> Counts:
    """The same density for every layer."""
    sizes = np.array([t.size for t in specs], np.int64)
    quotas = sizes.astype(np.float64) * (keep / max(1, int(sizes.sum())))
    return apportion(keep, quotas, sizes)


def erk_counts(keep: int, specs: tuple[TensorSpec, ...]) -> Counts:
    """Densities epsilon * `erk_factor`; layers that this would fill above 1 are fixed at 1 and epsilon solved again
    for the others, until none is (Evci et al. 2020, appendix; the redistribution of Mocanu's code)."""
    sizes = np.array([t.size for t in specs], np.int64)
    raw = np.array([erk_factor(t) * t.size for t in specs])
    full = np.zeros(len(specs), np.bool_)
    quotas = sizes.astype(np.float64)
    while not full.all():
        epsilon = (keep - int(sizes[full].sum())) / raw[~full].sum()
        quotas = np.where(full, sizes, epsilon * raw).astype(np.float64)
        above = (quotas > sizes) & ~full
        if not above.any():
            break
        full |= above
    return apportion(keep, quotas, sizes)


# "lamp" spreads through its scores: one rank over all layers.
_BY_LAYER: dict[str, Callable[[int, tuple[TensorSpec, ...]], Counts] | None] = {
    "global": None,
    "lamp": None,
    "uniform": uniform_counts,
    "erk": erk_counts,
}
assert tuple(sorted(_BY_LAYER)) == tuple(sorted(SPREADS))


def shares(spread: str, keep: int, schema: Schema, overrides: Mapping[str, float]) -> tuple[Share, ...]:
    """`keep` weights spread over the prunable layers; a layer in `overrides` (name -> density) keeps its own density,
    never more than its part, and the others share what is left.

    Raises `LocalError` where the overrides alone hold more than `keep`, or the others could not hold the rest."""
    fixed = tuple(
        Share(names=(t.name,), keep=keep_count(overrides[t.name], t.size))
        for t in schema.prunable
        if t.name in overrides
    )
    rest = tuple(t for t in schema.prunable if t.name not in overrides)
    left, room = keep - sum(share.keep for share in fixed), sum(t.size for t in rest)
    slack = len(fixed)  # each of them was rounded to a whole weight
    if not -slack <= left <= room + slack:
        raise LocalError(
            "the densities of single layers contradict the density of the whole",
            seen=f"{keep - left} weights in {', '.join(overrides)}",
            expected=f"{keep} in all, with {room} weights in the other layers",
            next_step="Change pruning.density or pruning.layers",
        )
    if not rest:
        return fixed
    left = min(max(left, 0), room)
    by_layer = _BY_LAYER[spread]
    if by_layer is None:
        return (*fixed, *_ranked_together(rest, left))
    counts = by_layer(left, rest)
    return (*fixed, *(Share(names=(t.name,), keep=int(n)) for t, n in zip(rest, counts, strict=True)))


def _ranked_together(rest: tuple[TensorSpec, ...], keep: int) -> tuple[Share, ...]:
    """One rank for all but the matrices of recurrent layers, at one density; in order of the first tensor of each."""
    groups: dict[str, tuple[TensorSpec, ...]] = {}
    for spec in rest:
        alone = spec.name if RECURRENT.search(spec.name) else ""
        groups[alone] = (*groups.get(alone, ()), spec)
    sizes = np.array([sum(t.size for t in group) for group in groups.values()], np.int64)
    quotas = sizes.astype(np.float64) * (keep / max(1, int(sizes.sum())))
    counts = apportion(keep, quotas, sizes)
    return tuple(
        Share(names=tuple(t.name for t in group), keep=int(n)) for group, n in zip(groups.values(), counts, strict=True)
    )
