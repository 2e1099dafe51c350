"""What a run asks of pruning, as plain values: the run file's `[pruning]` section becomes one of these.

It exists so that the pure code below needs neither pydantic nor a file. Whatever can be known to be impossible, or to
contradict itself, from the numbers alone is refused here, before the run starts; what needs the model's names and
shapes is refused by `check_model`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from fedprune.errors import LocalError
from fedprune.pruning.floors import Floors

METHODS = (
    "magnitude",
    "random",
    "synflow",
    "gradient",
    "snip",
    "taylor",
    "fisher",
    "movement",
    "activation",
    "apoz",
    "wanda",
)
SCHEDULES = ("cubic", "linear", "once", "init", "staged", "regrow")
SPREADS = ("global", "uniform", "erk", "lamp")
MEASURES = ("weights", "cost")
THRESHOLDS = ("absolute", "mean")
REGROWS = ("votes", "gradient", "posterior", "local")
MERGES = ("union", "majority", "intersection", "quorum")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """How to prune; the defaults are gradual global magnitude, and off.

    - `density`: alive share of the prunable weights to end with, 1.0 is off; with `measure` = "cost" the share of
      their cost (multiply-adds).
    - `method`: the score. `spread`: how a budget is laid over the layers; `layers`: (name pattern, density) pairs that
      are exempt from it.
    - `schedule`: "cubic" and "linear" step every `every` rounds from `start` to `end` (shares of the rounds); "once"
      prunes after `start`, "init" before the first round; "staged" follows `stages`, (share of the rounds, density)
      pairs; "regrow" prunes before the first round, then exchanges every `every` rounds until `end` a share of the
      alive weights that falls from `exchange` to 0, by `regrow`: the clients' votes, their mean gradient, Beta
      posteriors with `gamma` and `rate`, or "local": each client in its own mask, which it trains for a round before
      all are pruned back to one.
    - `threshold` replaces the density: ("absolute", t) keeps |w| >= t, ("mean", f) keeps |w| >= f * mean |w| by layer.
    - `levels`: densities of clients that hold a part of the mask, cut anew every `every` rounds until `end`.
    - `merge`: the clients propose masks, and the rule makes one of them: "union", "majority", "intersection" or, of the
      share `quorum`, "quorum".
    - `recovery_rounds`: least number of rounds of steady state after the last change of the mask.
    """

    density: float = 1.0
    method: str = "magnitude"
    schedule: str = "cubic"
    start: float = 0.1
    end: float = 0.6
    every: int = 5
    floors: Floors = field(default_factory=Floors)
    recovery_rounds: int = 8
    spread: str = "global"
    layers: tuple[tuple[str, float], ...] = ()
    measure: str = "weights"
    threshold: tuple[str, float] | None = None
    stages: tuple[tuple[float, float], ...] = ()
    regrow: str = "votes"
    exchange: float = 0.3
    gamma: float = 0.5
    rate: float = 10.0
    levels: tuple[float, ...] = ()
    merge: str | None = None
    quorum: float = 0.5

    def __post_init__(self) -> None:
        self._check_names()
        self._check_numbers()
        self._check_stages()
        self._check_agreement()
        self._check_merge()
        self._check_local()

    @property
    def prunes(self) -> bool:
        """False when nothing is ever to be pruned."""
        return self.density < 1.0 or self.threshold is not None

    def _check_names(self) -> None:
        for key, known in (
            ("method", METHODS),
            ("schedule", SCHEDULES),
            ("spread", SPREADS),
            ("measure", MEASURES),
            ("regrow", REGROWS),
        ):
            if getattr(self, key) not in known:
                raise _wrong(key, getattr(self, key), " | ".join(known))
        if self.threshold is not None and (self.threshold[0] not in THRESHOLDS or not self.threshold[1] > 0):
            raise _wrong("threshold", self.threshold, f"{' | '.join(THRESHOLDS)} and a number above 0")

    def _check_numbers(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise _wrong("density", self.density, "a share above 0 and at most 1")
        if not 0.0 <= self.start <= 1.0:
            raise _wrong("start", self.start, "a share of the rounds, 0 to 1")
        if not self.start < self.end <= 1.0:
            raise _wrong("end", self.end, f"a share of the rounds above start = {self.start} and at most 1")
        if self.every < 1:
            raise _wrong("every", self.every, "at least 1 round")
        if self.recovery_rounds < 0:
            raise _wrong("recovery_rounds", self.recovery_rounds, "0 rounds or more")
        if not 0.0 < self.exchange <= 1.0:
            raise _wrong("exchange", self.exchange, "a share above 0 and at most 1")
        if not 0.0 <= self.gamma <= 1.0:
            raise _wrong("gamma", self.gamma, "a share from 0 to 1")
        if not self.rate > 0.0:
            raise _wrong("rate", self.rate, "a number above 0")
        for level in self.levels:
            if not 0.0 < level <= 1.0:
                raise _wrong("levels", level, "shares above 0 and at most 1")
        for pattern, density in self.layers:
            if not 0.0 < density <= 1.0:
                raise _wrong(f"layers[{pattern!r}]", density, "a share above 0 and at most 1")

    def _check_stages(self) -> None:
        if (self.schedule == "staged") != bool(self.stages):
            raise _contradiction("schedule", self.schedule, "stages", self.stages)
        places, densities = [p for p, _ in self.stages], [d for _, d in self.stages]
        falling = all(a > b for a, b in pairwise([1.0, *densities]))
        rising = all(a < b for a, b in pairwise(places))
        if self.stages and not (falling and rising and places[0] >= 0.0 and places[-1] <= 1.0 and densities[-1] > 0.0):
            raise _wrong("stages", self.stages, "later and later shares of the rounds, lower and lower densities")
        if self.stages and densities[-1] != self.density:
            raise _contradiction("stages", self.stages, "density", self.density)

    def _check_merge(self) -> None:
        if self.merge is None:
            return
        if self.merge not in MERGES or not 0.0 < self.quorum <= 1.0:
            raise _wrong("merge", (self.merge, self.quorum), f"{' | '.join(MERGES)}, a share above 0")
        if self.method in ("magnitude", "random", "synflow"):
            # Clients that hold the same weights would all propose the same mask.
            raise _contradiction("merge", self.merge, "method", self.method)
        for key, usual in (("schedule", None), ("measure", "weights"), ("layers", ()), ("levels", ())):
            value = getattr(self, key)
            if value == "regrow" or (usual is not None and value != usual):
                raise _contradiction("merge", self.merge, key, value)

    def _check_local(self) -> None:
        if self.schedule != "regrow" or self.regrow != "local":
            return
        if self.levels:
            raise _contradiction("regrow", self.regrow, "levels", self.levels)
        if self.every < 2:
            raise _wrong("every", self.every, "2 rounds or more: what clients grew is trained for one first")

    def _check_agreement(self) -> None:
        if self.threshold is not None:
            for key, value in (("density", 1.0), ("method", "magnitude"), ("spread", "global"), ("measure", "weights")):
                if getattr(self, key) != value:
                    raise _contradiction("threshold", self.threshold, key, getattr(self, key))
            if self.schedule not in ("once", "init"):
                # Applied again to the survivors, a threshold compounds: that is a schedule, and should be said as one.
                raise _contradiction("threshold", self.threshold, "schedule", self.schedule)
        if self.layers and not self.density < 1.0:
            raise _contradiction("layers", self.layers, "density", self.density)
        single_rank = self.measure == "cost" or self.method == "synflow"
        if single_rank and (self.layers or self.spread != "global"):
            rule = ("measure", self.measure) if self.measure == "cost" else ("method", self.method)
            raise _contradiction(*rule, "spread", self.spread if self.spread != "global" else self.layers)
        if self.measure == "cost" and self.method == "synflow":
            raise _contradiction("measure", self.measure, "method", self.method)
        if self.spread == "lamp" and self.method != "magnitude":
            raise _contradiction("spread", self.spread, "method", self.method)


def keep_count(density: float, size: int) -> int:
    """How many of `size` weights a density keeps: the nearest whole number, halves up."""
    return min(size, int(density * size + 0.5))


def _wrong(key: str, seen: object, expected: str) -> LocalError:
    return LocalError(f"pruning.{key} is out of range", seen=repr(seen), expected=expected)


def _contradiction(key: str, value: object, other: str, other_value: object) -> LocalError:
    return LocalError(
        f"pruning.{key} and pruning.{other} contradict each other",
        seen=f"{key} = {value!r}, {other} = {other_value!r}",
        next_step="Keep the one you mean, and leave the other at its default",
    )
