"""Server optimizers: the mean update is a gradient, and the server takes its own step along it.

Momentum after Hsu et al. (2019); Adagrad, Adam and Yogi after Reddi et al. (2021), Algorithm 2, which has no bias
correction; both moments begin at zero. State moves only where the round covered a weight, and is forgotten where the
mask has none: a weight that is grown back starts anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fedprune.errors import LocalError
from fedprune_server.aggregation.aggregators import Combined
from fedprune_server.aggregation.fixed import Floats

FIRST, SECOND = "momentum", "second_moment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """Go `rate` of the way that the mean points; remembers nothing."""

    rate: float = 1.0

    def __post_init__(self) -> None:
        _check(rate=self.rate, betas=())

    @property
    def names(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def step(self, combined: Combined, state: dict[str, Floats]) -> Floats:
        """`rate` times the mean, in its own memory."""
        step = combined.mean
        if self.rate != 1.0:
            step *= self.rate
        return step


@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum:
    """v = beta v + d; step = rate v."""

    rate: float = 1.0
    beta: float = 0.9

    def __post_init__(self) -> None:
        _check(rate=self.rate, betas=(self.beta,))

    @property
    def names(self) -> tuple[str, ...]:
        """The velocity."""
        return (FIRST,)

    def step(self, combined: Combined, state: dict[str, Floats]) -> Floats:
        """The velocity's step."""
        velocity = self.beta * state[FIRST] + combined.mean
        state[FIRST] = combined.where_covered(velocity, state[FIRST])
        return combined.where_covered(self.rate * velocity, 0.0)


def adagrad(before: Floats, square: Floats, beta: float) -> Floats:
    """v = v + d^2."""
    return before + square


def adam(before: Floats, square: Floats, beta: float) -> Floats:
    """v = beta v + (1 - beta) d^2."""
    return beta * before + (1 - beta) * square


def yogi(before: Floats, square: Floats, beta: float) -> Floats:
    """v = v - (1 - beta) d^2 sign(v - d^2)."""
    return before - (1 - beta) * square * np.sign(before - square)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptive:
    """m = beta m + (1 - beta) d; v after `moment`, one of the three above; step = rate m / (sqrt(v) + floor)."""

    moment: Callable[[Floats, Floats, float], Floats]
    rate: float = 0.1
    beta: float = 0.9
    beta_second: float = 0.99
    floor: float = 1e-3

    def __post_init__(self) -> None:
        _check(rate=self.rate, betas=(self.beta, self.beta_second))
        if not self.floor > 0:
            raise LocalError("the floor of an adaptive step must be above 0", seen=self.floor)

    @property
    def names(self) -> tuple[str, ...]:
        """Both moments."""
        return FIRST, SECOND

    def step(self, combined: Combined, state: dict[str, Floats]) -> Floats:
        """The first moment, each weight in units of its own second one."""
        first = self.beta * state[FIRST] + (1 - self.beta) * combined.mean
        second = self.moment(state[SECOND], np.square(combined.mean), self.beta_second)
        state[FIRST] = combined.where_covered(first, state[FIRST])
        state[SECOND] = combined.where_covered(second, state[SECOND])
        return combined.where_covered(self.rate * first / (np.sqrt(second) + self.floor), 0.0)


def _check(*, rate: float, betas: tuple[float, ...]) -> None:
    if not rate > 0:
        raise LocalError("the aggregation rate must be above 0", seen=rate)
    for beta in betas:
        if not 0 <= beta < 1:
            raise LocalError("a moment's decay is out of range", seen=beta, expected="0 up to, but not, 1")
