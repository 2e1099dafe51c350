"""Whether a model got worse, as an interval and not as one number.

Before and after are measured on the same units (clients, batches or single examples), and the differences are taken
pair by pair: what makes a unit hard is in both and cancels. Units weigh by their examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from fedprune.errors import LocalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One unit's held-out result: `value` is an accuracy (the larger the better) over `examples` examples."""

    value: float
    examples: float = 1.0

    def __post_init__(self) -> None:
        if not self.examples > 0 or not np.isfinite(self.value):
            raise LocalError("no such measurement", seen=self, expected="a finite value over some examples")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """The mean drop from before to after (positive: worse now) with its confidence bounds, over `pairs` units."""

    mean: float
    low: float
    high: float
    pairs: int


def paired_drop(before: Mapping[str, Measured], after: Mapping[str, Measured], confidence: float = 0.95) -> Interval:
    """Student's paired interval over the units that both have, weighted by the examples they had before.

    The weighted mean's variance is sum p_i^2 (d_i - mean)^2 n_eff / (n_eff - 1) with n_eff = 1 / sum p_i^2: equal
    weights give the textbook interval. With fewer than two units in common the bounds are infinite; with none the
    mean is infinite too: nothing speaks for the model."""
    units = sorted(before.keys() & after.keys())
    if not units:
        return Interval(mean=inf, low=-inf, high=inf, pairs=0)
    drops = np.array([before[u].value - after[u].value for u in units])
    weights = np.array([before[u].examples for u in units])
    weights = weights / weights.sum()
    mean = float(weights @ drops)
    if len(units) == 1:
        return Interval(mean=mean, low=-inf, high=inf, pairs=1)
    effective = float(1 / np.square(weights).sum())
    variance = float(np.square(weights) @ np.square(drops - mean)) * effective / max(effective - 1, 1e-9)
    half = t_quantile((1 + confidence) / 2, max(effective - 1, 1.0)) * sqrt(variance)
    return Interval(mean=mean, low=mean - half, high=mean + half, pairs=len(units))


def t_quantile(probability: float, freedom: float) -> float:
    """The `probability` quantile of Student's t with `freedom` >= 1 degrees of freedom, for 0.5 <= probability < 1.

    With t = sqrt(n) tan(theta) the density becomes cos(theta)^(n - 1) on a bounded interval: it is summed there and
    the sum inverted, to about six digits."""
    if not 0.5 <= probability < 1.0 or freedom < 1.0:
        raise LocalError("no such quantile", seen=f"{probability}, {freedom} degrees of freedom")
    theta = np.linspace(0.0, np.pi / 2, 100_001)
    density = np.cos(theta) ** (freedom - 1)
    sums = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    found = np.interp(2 * probability - 1, sums / sums[-1], theta)
    return float(sqrt(freedom) * np.tan(found))
