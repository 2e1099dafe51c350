"""From a pruning plan to the path of a controller that tries its steps on approval."""

from __future__ import annotations

from fedprune.errors import LocalError
from fedprune.pruning import Floors, PruningPlan, steps
from fedprune.tensor import Schema
from fedprune_server.trials import ControlPlan


def control_plan(
    plan: PruningPlan,
    rounds: int,
    schema: Schema,
    *,
    max_drop: float,
    auto: bool = False,
    recovery_rounds: int = 3,
    extensions: int = 1,
) -> ControlPlan:
    """The controller's plan for a run: along the densities of the schedule, or with `auto` from 1 down to what the
    floors allow. The last trial ends early enough for the steady state that `plan` asks for.

    Raises `LocalError` where the rounds hold no trial."""
    path = (
        auto_path(least_density(plan.floors, schema))
        if auto
        else tuple(step.density for step in steps(plan, rounds) if step.density < 1.0)
    )
    first = max(1, int(plan.start * rounds + 1e-9))
    last = rounds - plan.recovery_rounds - recovery_rounds * (1 + extensions) - 1
    if last < first + 1 or not path:
        raise LocalError(
            "the run has no room for a pruning step on approval",
            seen=f"{rounds} rounds, first trial after round {first + 1}, last after round {last}",
            expected=f"{recovery_rounds * (1 + extensions)} rounds of recovery and {plan.recovery_rounds} after it",
            next_step="Give the run more rounds, or lower pruning.start",
        )
    return ControlPlan(
        path=path,
        first=first,
        last=last,
        recovery_rounds=recovery_rounds,
        extensions=extensions,
        max_drop=max_drop,
    )


def least_density(floors: Floors, schema: Schema) -> float:
    """The density below which the floors hold everything; 1 where nothing can be pruned."""
    size = sum(t.size for t in schema.prunable)
    return max(1, floors.least(schema)) / size if size else 1.0


def auto_path(least_density: float, ratio: float = 0.7) -> tuple[float, ...]:
    """Densities for a run that looks for its own: each `ratio` of the one before, down to `least_density`."""
    if not 0.0 < least_density < 1.0 or not 0.0 < ratio < 1.0:
        raise LocalError("no such path", seen=(least_density, ratio), expected="shares between 0 and 1")
    path = [ratio]
    while path[-1] * ratio > least_density:
        path.append(path[-1] * ratio)
    return (*path, least_density) if path[-1] > least_density else (least_density,)
