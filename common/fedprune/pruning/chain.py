"""Models whose matrices follow one another, seen as flow: SynFlow's score, and units that nothing passes through.

With all-ones input and |W| for W, what arrives at a unit is the weight of all paths to it, and what leaves it the
weight of all paths to the output. A path is alive where all its weights are. No data and no torch are needed, but
only plain chains [out, in] can be read off a schema; for other models the flow is computed by whoever has the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.mask import Bits, Mask
from fedprune.pruning.floors import Floors, Scores
from fedprune.pruning.plan import keep_count
from fedprune.pruning.scores import values
from fedprune.pruning.selection import Selection, select
from fedprune.tensor import Role, Schema

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def chain_of(schema: Schema) -> tuple[str, ...]:
    """The names of the matrices, input first. Raises `LocalError` where the model is not a chain of matrices."""
    weights = schema.of(Role.PRUNABLE, Role.FREE)
    chain = [t for t in weights if len(t.shape) == 2]
    odd = next((t for t in weights if len(t.shape) > 2), None)
    gap = next(((a, b) for a, b in pairwise(chain) if a.shape[0] != b.shape[1]), None)
    if odd is not None or gap is not None or not chain:
        raise LocalError(
            "the model is not a chain of matrices",
            seen=f"{odd.name!r} {list(odd.shape)}" if odd else f"{[t.name for t in gap]}" if gap else "no matrix",
            expected="matrices [out, in], each fed by the one before",
            next_step="Choose a score that clients compute, or magnitude",
        )
    return tuple(t.name for t in chain)


def absolute(schema: Schema, weights: Mapping[str, NDArray[np.generic]], mask: Mask) -> dict[str, Matrix]:
    """|W| * m of each matrix of the chain, float64, the largest of each scaled to 1 so that no product overflows."""
    matrices = {}
    for name in chain_of(schema):
        matrix = np.abs(values(schema[name], weights[name])).astype(np.float64)
        if name in mask.alive:
            matrix *= mask.alive[name]
        matrices[name] = matrix / (matrix.max(initial=0.0) or 1.0)
    return matrices


def flows(matrices: Sequence[Matrix]) -> tuple[list[Vector], list[Vector]]:
    """(arriving, leaving): at each border of the chain, the input first, what comes in from all-ones input and what
    goes on to the output; both lists are one longer than the chain."""
    arriving = [np.ones(matrices[0].shape[1])]
    for matrix in matrices:
        arriving.append(_unit(matrix @ arriving[-1]))
    leaving = [np.ones(matrices[-1].shape[0])]
    for matrix in reversed(matrices):
        leaving.append(_unit(matrix.T @ leaving[-1]))
    return arriving, leaving[::-1]


def _unit(flow: Vector) -> Vector:
    # Only ratios within a border matter; deep chains would overflow or vanish.
    return flow / (flow.max(initial=0.0) or 1.0)


def synflow(schema: Schema, weights: Mapping[str, NDArray[np.generic]], mask: Mask) -> dict[str, Scores]:
    """w dR/dw for R = 1^T prod |W| 1 (Tanaka et al. 2020), up to one positive factor for the whole model.

    The factor of each layer is put right by SynFlow's own law: the scores of every layer add up to the same R."""
    matrices = absolute(schema, weights, mask)
    arriving, leaving = flows(list(matrices.values()))
    scores = {}
    for place, (name, matrix) in enumerate(matrices.items()):
        score = leaving[place + 1][:, None] * matrix * arriving[place][None, :]
        if name in mask.alive:
            scores[name] = (score / (score.sum() or 1.0)).astype(np.float32)
    return scores


def synflow_mask(
    weights: Mapping[str, NDArray[np.generic]],
    mask: Mask,
    density: float,
    floors: Floors,
    version: int,
    *,
    iterations: int = 100,
) -> Selection:
    """Prune to `density` in `iterations` steps of density^(k / n), scoring anew before each: a layer is never emptied
    by the first guess (Tanaka et al. 2020, algorithm 1). The explanation is that of the last step."""
    if iterations < 1:
        raise LocalError("SynFlow needs at least one iteration", seen=iterations)
    chosen = Selection(mask=mask, layers=())
    for k in range(1, iterations + 1):
        scores = synflow(mask.schema, weights, chosen.mask)
        keep = keep_count(density ** (k / iterations), mask.size)
        chosen = select(scores, chosen.mask, keep, floors, version, score="synflow")
    return chosen


def dead_units(schema: Schema, weights: Mapping[str, NDArray[np.generic]], mask: Mask) -> dict[str, Bits]:
    """By matrix, its output units [out] through which nothing flows, in or out; an output of the model is dead when
    nothing arrives there."""
    matrices = absolute(schema, weights, mask)
    arriving, leaving = flows(list(matrices.values()))
    return {name: (arriving[place + 1] == 0) | (leaving[place + 1] == 0) for place, name in enumerate(matrices)}


def without_dead(mask: Mask, dead: Mapping[str, Bits]) -> dict[str, Bits]:
    """The mask's bits without the weights into and out of dead units: `dead` as `dead_units` gives it, in chain order.

    A dead unit still emits what its bias makes of nothing: `fold_constant` first, or zero its bias too."""
    alive = {name: bits.copy() for name, bits in mask.alive.items()}
    names = list(dead)
    for place, name in enumerate(names):
        if name in alive:
            alive[name][dead[name], :] = False
        if place + 1 < len(names) and names[place + 1] in alive:
            alive[names[place + 1]][:, dead[name]] = False
    return alive


def fold_constant(
    dead: Bits, emitted: NDArray[np.floating], following: NDArray[np.floating], bias: NDArray[np.floating]
) -> NDArray[np.floating]:
    """The next layer's bias [out] with what dead units emit worked in: `emitted` [in] is the constant output of each
    unit, relu(bias) for a plain layer, relu(beta - gamma mu / sigma) behind a batch norm; `following` is [out, in]."""
    return bias + following[:, dead] @ emitted[dead]
