"""Scores that need data, summed batch by batch: numpy arrays in, one score array out.

A client feeds these from its own loop (`scoring`), and the coordinator combines what comes out by example weight.
All give "keep the largest" scores of the tensor's shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedprune.errors import LocalError
from fedprune.pruning.floors import Scores

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """What one batch adds, from its mean gradient g and the weights w, and what is made of the mean over examples."""

    each: Callable[[Floats, Floats], Floats]
    finish: Callable[[Floats], Floats]


FORMULAS: dict[str, Formula] = {
    # |g|: what RigL, FedDST and FedTiny grow by.
    "gradient": Formula(each=lambda g, w: g, finish=np.abs),
    # |g w| of the whole sample (SNIP, Lee et al. 2019; SSFL averages it over clients).
    "snip": Formula(each=lambda g, w: g * w, finish=np.abs),
    # (g w)^2: first-order Taylor (Molchanov et al. 2019).
    "taylor": Formula(each=lambda g, w: g * w, finish=np.square),
    # Mean g^2: the diagonal of the empirical Fisher information, batches standing for examples.
    "fisher": Formula(each=lambda g, w: np.square(g), finish=lambda mean: mean),
    # -sum g w over training steps: weights that move away from 0 (Sanh et al. 2020); for fine-tuning.
    "movement": Formula(each=lambda g, w: -g * w, finish=lambda mean: mean),
}


@dataclass(slots=True, kw_only=True)
class GradientScore:
    """Running sums of one formula, name -> array; add every batch, then ask for the result."""

    method: str
    examples: int = 0
    sums: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in FORMULAS:
            raise LocalError("no such score of gradients", seen=self.method, expected=" | ".join(FORMULAS))

    def add(self, gradients: Mapping[str, Floats], weights: Mapping[str, Floats], examples: int) -> None:
        """`gradients` of the batch's mean loss, `weights` they were taken at, and the batch's size."""
        if examples < 1:
            raise LocalError("a batch without examples has no gradient", seen=examples)
        self.examples += examples
        for name, gradient in gradients.items():
            part = FORMULAS[self.method].each(gradient, weights[name]) * np.float32(examples)
            self.sums[name] = self.sums[name] + part if name in self.sums else part

    def result(self) -> dict[str, Scores]:
        """The scores. Raises `LocalError` before the first batch."""
        if self.examples == 0:
            raise LocalError("a score over no batch at all", next_step="Give the client data")
        finish = FORMULAS[self.method].finish
        return {name: finish(total / np.float32(self.examples)) for name, total in self.sums.items()}


def wanda(weight: Floats, norms: Floats) -> Scores:
    """|W_ij| ||x_j||_2 (Sun et al. 2024): `norms` [in] of the layer's inputs over the sample, `weight` [out, in...].

    Meant to be ranked within each row: see `scores.within_rows`."""
    return np.abs(weight) * _over_columns(norms, weight)


def unit_activity(outputs: Floats) -> Floats:
    """Mean |a| of each unit [units] from a batch of outputs [examples, units, ...]: the larger the more it does."""
    return np.asarray(np.abs(outputs).mean(axis=_all_but_units(outputs), dtype=np.float64), np.float32)


def unit_nonzero(outputs: Floats) -> Floats:
    """1 - APoZ, the share of outputs that are not 0, [units] (Hu et al. 2016 prune the largest share of zeros)."""
    return np.asarray((outputs != 0).mean(axis=_all_but_units(outputs), dtype=np.float64), np.float32)


def over_rows(units: Floats, weight: Floats) -> Scores:
    """Each weight gets the score of the unit it feeds, times |w| so that weights of one unit are told apart."""
    if units.shape != weight.shape[:1]:
        raise LocalError("unit scores do not fit", seen=list(units.shape), expected=list(weight.shape[:1]))
    return np.abs(weight) * units.reshape(-1, *(1,) * (weight.ndim - 1))


def _over_columns(norms: Floats, weight: Floats) -> Floats:
    if weight.ndim < 2 or norms.shape != weight.shape[1:2]:
        raise LocalError("input norms do not fit", seen=list(norms.shape), expected=list(weight.shape[1:2]))
    return norms.reshape(1, -1, *(1,) * (weight.ndim - 2))


def _all_but_units(outputs: Floats) -> tuple[int, ...]:
    return tuple(axis for axis in range(outputs.ndim) if axis != 1)
