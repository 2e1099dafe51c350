"""When the mask changes, and to which density.

A schedule is a list of steps fixed before the run starts: a pure function of the round, so that a restarted
coordinator takes up the same one. Rounds count from 1; a step "after round t" acts on the aggregate of round t and
is first felt in round t + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedprune.errors import LocalError
from fedprune.pruning.plan import PruningPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """After round `round`, bring the mask to `density` of the prunable weights."""

    round: int
    density: float


def cubic(progress: float, first: float, last: float) -> float:
    """Density at `progress` (0 to 1) on the way from `first` to `last`, exact at both ends.

    Zhu & Gupta 2017, equation 1: s_t = s_f + (s_i - s_f)(1 - (t - t0) / (n D))^3; the law is the same in densities.
    """
    if progress <= 0.0:
        return first
    return last + (first - last) * (1.0 - min(progress, 1.0)) ** 3


def steps(plan: PruningPlan, rounds: int) -> tuple[Step, ...]:
    """The steps of a run of `rounds` rounds, in order; none when pruning is off.

    t0 = floor(start * rounds), steps at t0 + D, t0 + 2 D ... up to floor(end * rounds); the last one reaches the
    density. Raises `LocalError` when no step fits, or when too few rounds of steady state would be left.
    """
    if not plan.prunes:
        return ()
    first = _whole(plan.start * rounds)
    window = _whole(plan.end * rounds) - first
    count = window // plan.every
    if count < 1:
        raise LocalError(
            "no pruning step fits between start and end",
            seen=f"{rounds} rounds, pruning.start = {plan.start}, pruning.end = {plan.end}: {window} rounds",
            expected=f"at least pruning.every = {plan.every} rounds",
            next_step="Lower pruning.every, widen start to end, or give the run more rounds",
        )
    _check_recovery(plan, rounds, first + count * plan.every)
    return tuple(
        Step(round=first + k * plan.every, density=cubic(k / count, 1.0, plan.density)) for k in range(1, count + 1)
    )


def density_at(round: int, rounds: int, plan: PruningPlan) -> float:
    """The density in force once round `round` is committed: that of the last step taken, 1.0 before the first."""
    taken = [step.density for step in steps(plan, rounds) if step.round <= round]
    return taken[-1] if taken else 1.0


def _whole(value: float) -> int:
    # 0.6 * 35 is 20.999...: a share that means a whole number of rounds must give it.
    return int(value + 1e-9)


def _check_recovery(plan: PruningPlan, rounds: int, last: int) -> None:
    # The first round after the last step still carries its mask down: steady state begins with the second.
    left = rounds - last - 1
    if left < plan.recovery_rounds:
        raise LocalError(
            "too few rounds are left after the last pruning step",
            seen=f"last step after round {last} of {rounds}: {max(left, 0)} rounds of steady state",
            expected=f"at least {plan.recovery_rounds}",
            next_step="Lower pruning.end, or give the run more rounds",
        )
