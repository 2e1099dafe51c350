"""What a run asks of pruning, as plain values: the run file's `[pruning]` section becomes one of these.

It exists so that the pure code below needs neither pydantic nor a file. Whatever can be known to be impossible from
the numbers alone is refused here, before the run starts; what needs the model's shapes is refused by `check_floors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fedprune.errors import LocalError
from fedprune.pruning.floors import Floors
from fedprune.tensor import Schema

METHODS = ("magnitude",)
SCHEDULES = ("cubic",)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningPlan:
    """`density` is the alive share of the prunable weights to end with; 1.0 switches pruning off. `start` and `end`
    are shares of the run's rounds, `every` a number of rounds, `recovery_rounds` the least number of rounds of
    steady state that must be left after the last change of the mask."""

    density: float = 1.0
    method: str = "magnitude"
    schedule: str = "cubic"
    start: float = 0.1
    end: float = 0.6
    every: int = 5
    floors: Floors = field(default_factory=Floors)
    recovery_rounds: int = 8

    def __post_init__(self) -> None:
        if not 0.0 < self.density <= 1.0:
            raise _wrong("density", self.density, "a share above 0 and at most 1")
        if self.method not in METHODS:
            raise _wrong("method", self.method, " | ".join(METHODS))
        if self.schedule not in SCHEDULES:
            raise _wrong("schedule", self.schedule, " | ".join(SCHEDULES))
        if not 0.0 <= self.start <= 1.0:
            raise _wrong("start", self.start, "a share of the rounds, 0 to 1")
        if not self.start < self.end <= 1.0:
            raise _wrong("end", self.end, f"a share of the rounds above start = {self.start} and at most 1")
        if self.every < 1:
            raise _wrong("every", self.every, "at least 1 round")
        if self.recovery_rounds < 0:
            raise _wrong("recovery_rounds", self.recovery_rounds, "0 rounds or more")

    @property
    def prunes(self) -> bool:
        """False when nothing is ever to be pruned."""
        return self.density < 1.0


def keep_count(density: float, size: int) -> int:
    """How many of `size` weights a density keeps: the nearest whole number, halves up."""
    return min(size, int(density * size + 0.5))


def check_floors(plan: PruningPlan, schema: Schema) -> None:
    """Raise `LocalError` where the model has nothing to prune or its floors alone hold more than the density."""
    if not plan.prunes:
        return
    size = sum(t.size for t in schema.prunable)
    if size == 0:
        raise LocalError(
            "pruning is on but no tensor can be pruned",
            seen=f"pruning.density = {plan.density}",
            next_step="Set pruning.density = 1.0, or lift a protection with pruning.prune",
        )
    least = plan.floors.least(schema)
    if keep_count(plan.density, size) < least:
        raise LocalError(
            "the floors hold more weights than the density allows",
            seen=f"pruning.density = {plan.density}: {keep_count(plan.density, size)} of {size} weights",
            expected=f"at least {least}: one for each row and column, and the floor of each layer",
            next_step=f"Set pruning.density to {_up(least / size)} or more, or lower pruning.floor",
        )


def _up(share: float) -> float:
    return min(1.0, int(share * 10_000 + 1) / 10_000)


def _wrong(key: str, seen: object, expected: str) -> LocalError:
    return LocalError(f"pruning.{key} is out of range", seen=repr(seen), expected=expected)
