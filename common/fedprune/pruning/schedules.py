"""When the mask changes, and to which density.

A schedule is a list of steps fixed before the run starts: a pure function of the round, so that a restarted
coordinator takes up the same one. Rounds count from 1; a step "after round t" acts on the aggregate of round t and
is first felt in round t + 1. A step after round 0 acts on the first weights, before anybody has trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedprune.errors import LocalError
from fedprune.pruning.plan import SCHEDULES, PruningPlan


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


def linear(progress: float, first: float, last: float) -> float:
    """The same at an even pace."""
    if progress <= 0.0:
        return first
    return last + (first - last) * (1.0 - min(progress, 1.0))


def steps(plan: PruningPlan, rounds: int) -> tuple[Step, ...]:
    """The steps of a run of `rounds` rounds, in order; none when pruning is off.

    Raises `LocalError` when no step fits, or when too few rounds of steady state would be left.
    """
    if not plan.prunes:
        return ()
    found = _MAKERS[plan.schedule](plan, rounds)
    changes = [step.round for step in found] + list(exchange_rounds(plan, rounds))
    _check_recovery(plan, rounds, max(changes))
    return found


def exchange_rounds(plan: PruningPlan, rounds: int) -> tuple[int, ...]:
    """The rounds after which weights are exchanged: every `every` rounds before `end`; empty unless "regrow"."""
    if plan.schedule != "regrow" or not plan.prunes:
        return ()
    return tuple(range(plan.every, last_exchange(plan, rounds), plan.every))


def last_exchange(plan: PruningPlan, rounds: int) -> int:
    """T_end: from this round on nothing is exchanged."""
    return max(1, _whole(plan.end * rounds))


def density_at(round: int, rounds: int, plan: PruningPlan) -> float:
    """The density in force once round `round` is committed: that of the last step taken, 1.0 before the first."""
    taken = [step.density for step in steps(plan, rounds) if step.round <= round]
    return taken[-1] if taken else 1.0


def _gradual(law: Callable[[float, float, float], float]) -> Callable[[PruningPlan, int], tuple[Step, ...]]:
    """Steps at t0 + D, t0 + 2 D ... up to floor(end * rounds), t0 = floor(start * rounds); the last reaches `density`."""

    def make(plan: PruningPlan, rounds: int) -> tuple[Step, ...]:
        first = _whole(plan.start * rounds)
        window = _whole(plan.end * rounds) - first
        count = window // plan.every
        if count < 1:
            raise _no_step(plan, rounds, window)
        laid = ((first + k * plan.every, law(k / count, 1.0, plan.density)) for k in range(1, count + 1))
        return tuple(Step(round=round, density=density) for round, density in laid)

    return make


def _once(plan: PruningPlan, rounds: int) -> tuple[Step, ...]:
    return (Step(round=max(1, _whole(plan.start * rounds)), density=plan.density),)


def _init(plan: PruningPlan, rounds: int) -> tuple[Step, ...]:
    return (Step(round=0, density=plan.density),)


def _staged(plan: PruningPlan, rounds: int) -> tuple[Step, ...]:
    found = tuple(Step(round=_whole(share * rounds), density=density) for share, density in plan.stages)
    if len({step.round for step in found}) < len(found):
        raise LocalError(
            "two stages fall into one round",
            seen=f"pruning.stages = {plan.stages} in {rounds} rounds",
            next_step="Move the stages apart, or give the run more rounds",
        )
    return found


_MAKERS: dict[str, Callable[[PruningPlan, int], tuple[Step, ...]]] = {
    "cubic": _gradual(cubic),
    "linear": _gradual(linear),
    "once": _once,
    "init": _init,
    "staged": _staged,
    "regrow": _init,
}
assert tuple(_MAKERS) == SCHEDULES


def _whole(value: float) -> int:
    # 0.29 * 100 is 28.999...: a share that means a whole number of rounds must give it.
    return int(value + 1e-9)


def _no_step(plan: PruningPlan, rounds: int, window: int) -> LocalError:
    return LocalError(
        "no pruning step fits between start and end",
        seen=f"{rounds} rounds, pruning.start = {plan.start}, pruning.end = {plan.end}: {window} rounds",
        expected=f"at least pruning.every = {plan.every} rounds",
        next_step="Lower pruning.every, widen start to end, or give the run more rounds",
    )


def _check_recovery(plan: PruningPlan, rounds: int, last: int) -> None:
    # The first round after the last change still carries its mask down: steady state begins with the second.
    left = rounds - last - 1
    if left < plan.recovery_rounds:
        raise LocalError(
            "too few rounds are left after the last change of the mask",
            seen=f"last change after round {last} of {rounds}: {max(left, 0)} rounds of steady state",
            expected=f"at least {plan.recovery_rounds}",
            next_step="Lower pruning.end, or give the run more rounds",
        )
