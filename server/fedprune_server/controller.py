"""Pruning on approval, as a table: (phase, event) -> new state and effects. No clock, no disk, no network.

The controller waits for its first round, has the dense model measured (BASELINE), and then tries one step after
another. A trial is proposed with the version of a round, trains for some rounds (RECOVERING), and is judged on held-out
data (JUDGING) against the best accepted model, pair by pair: when the whole interval of the drop lies within the
allowance the step is accepted, when the whole interval lies beyond it the step is rejected; in between it gets another
recovery, and at last the mean decides. A rejected trial is rolled back to its snapshot and half the step is tried
next; after some rejections in a row the mask is frozen. Because the best accepted model stays the measure, small drops
do not add up, and a run never ends with a trial that nobody approved.

The functions below are the cells of `TABLE`; pairs in `IGNORED` change nothing, and every pair is in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf

from fedprune.errors import LocalError
from fedprune.pruning.comparison import Interval, paired_drop
from fedprune_server.trials import (
    EVENTS,
    ControlPlan,
    ControlState,
    Decision,
    Effect,
    Evaluate,
    Evaluated,
    Event,
    Exhausted,
    Frozen,
    Phase,
    Propose,
    Proposed,
    Record,
    Release,
    Restore,
    RoundClosed,
    RunEnding,
    Trial,
)

Step = tuple[ControlState, tuple[Effect, ...]]


def step(state: ControlState, event: Event) -> Step:
    """One step of the controller: the state after `event`, and what to do about it."""
    key = (state.phase, type(event))
    if key in IGNORED:
        return state, ()
    return TABLE[key](state, event)


def next_density(state: ControlState) -> float | None:
    """What to try next: `scale` of the way to the first density on the path below the accepted one; None when there is
    none, or when the step would be too small to matter."""
    goal = next((d for d in state.plan.path if d < state.density * (1 - 1e-9)), None)
    if goal is None:
        return None
    density = state.density - (state.density - goal) * state.scale
    # The last piece to a goal may be small; a piece of a step may not.
    small = state.density - density < state.plan.smallest_step * state.density
    return None if small and state.scale < 1.0 else density


def judge(drop: Interval, plan: ControlPlan, *, last_chance: bool) -> Decision:
    """Accepted, rejected, or extended while the interval does not say and there is still a chance."""
    if drop.high <= plan.max_drop:
        return "accepted"
    if drop.low > plan.max_drop or drop.mean == inf:
        return "rejected"
    if not last_chance:
        return "extended"
    return "accepted" if drop.mean <= plan.max_drop else "rejected"


def _wait(state: ControlState, event: Event) -> Step:
    assert isinstance(event, RoundClosed)
    if event.round < state.plan.first:
        return state, ()
    return replace(state, phase=Phase.BASELINE), (Evaluate(event.round),)


def _ask_again(state: ControlState, event: Event) -> Step:
    # The evaluation asked for did not come, and a round went by.
    assert isinstance(event, RoundClosed)
    return state, (Evaluate(event.round),)


def _measure(state: ControlState, event: Event) -> Step:
    return replace(state, phase=Phase.READY, best=dict(_held_out(event).units)), ()


def _try_next(state: ControlState, event: Event) -> Step:
    assert isinstance(event, RoundClosed)
    if event.round > state.plan.last:
        return _freeze(state, f"no time for another trial after round {event.round}")
    density = next_density(state)
    if density is None:
        done = state.density <= state.plan.path[-1] * (1 + 1e-9)
        return _freeze(state, "the target is reached" if done else "smaller steps would not matter")
    trial = Trial(density=density, round=event.round, snapshot=event.before)
    return replace(state, phase=Phase.PROPOSING, trial=trial), (Propose(density, event.before),)


def _repeat_proposal(state: ControlState, event: Event) -> Step:
    # The proposal came to nothing that was committed: it stands on the newer round now.
    assert isinstance(event, RoundClosed)
    trial = replace(_trial(state), round=event.round, snapshot=event.before)
    return replace(state, trial=trial), (Propose(trial.density, event.before),)


def _recover(state: ControlState, event: Event) -> Step:
    assert isinstance(event, Proposed)
    trial = replace(_trial(state), density=event.density, left=state.plan.recovery_rounds)
    return replace(state, phase=Phase.RECOVERING, trial=trial), ()


def _exhaust(state: ControlState, event: Event) -> Step:
    frozen, effects = _freeze(state, "the floors hold what is left")
    return frozen, (Release(_trial(state).snapshot), *effects)


def _count_down(state: ControlState, event: Event) -> Step:
    assert isinstance(event, RoundClosed)
    trial = replace(_trial(state), left=_trial(state).left - 1)
    if trial.left > 0:
        return replace(state, trial=trial), ()
    return replace(state, phase=Phase.JUDGING, trial=trial), (Evaluate(event.round),)


def _judge(state: ControlState, event: Event) -> Step:
    units, trial = _held_out(event).units, _trial(state)
    drop = paired_drop(state.best, units, state.plan.confidence)
    decision = judge(drop, state.plan, last_chance=trial.extensions >= state.plan.extensions)
    record = _record(state, drop, decision)
    if decision == "extended":
        longer = replace(trial, left=state.plan.recovery_rounds, extensions=trial.extensions + 1)
        return replace(state, phase=Phase.RECOVERING, trial=longer), (record,)
    if decision == "rejected":
        return _reject(state, trial, record)
    best = dict(units) if drop.mean < 0 else state.best
    after = replace(
        state,
        phase=Phase.READY,
        density=trial.density,
        best=best,
        trial=None,
        scale=1.0,
        rejections=0,
        accepted=state.accepted + 1,
    )
    return after, (record, Release(trial.snapshot))


def _reject(state: ControlState, trial: Trial, record: Record) -> Step:
    count = state.rejections + 1
    after = replace(
        state,
        phase=Phase.READY,
        trial=None,
        scale=state.scale / 2,
        rejections=count,
        rollbacks=state.rollbacks + 1,
    )
    effects = (record, Restore(trial.snapshot))
    if count < state.plan.max_rejections:
        return after, effects
    frozen, ends = _freeze(after, f"{count} steps in a row were rejected")
    return frozen, (*effects, *ends)


def _abandon(state: ControlState, event: Event) -> Step:
    trial = _trial(state)
    undone = replace(state, rollbacks=state.rollbacks + 1)
    frozen, ends = _freeze(undone, "the run ended before the last trial was judged")
    return frozen, (_record(state, None, "abandoned"), Restore(trial.snapshot), *ends)


def _withdraw(state: ControlState, event: Event) -> Step:
    # Proposed but not committed: there is nothing to undo.
    frozen, ends = _freeze(state, "the run ended")
    return frozen, (Release(_trial(state).snapshot), *ends)


def _end(state: ControlState, event: Event) -> Step:
    return _freeze(state, "the run ended")


def _freeze(state: ControlState, reason: str) -> Step:
    return replace(state, phase=Phase.FROZEN, trial=None, reason=reason), (Frozen(reason),)


def _trial(state: ControlState) -> Trial:
    if state.trial is None:
        raise LocalError("the controller lost its trial", seen=state.phase.value)
    return state.trial


def _held_out(event: Event) -> Evaluated:
    assert isinstance(event, Evaluated)
    if event.source != "held_out":
        raise LocalError(
            "a pruning step cannot be judged on test data",
            seen=event.source,
            expected="what clients held out of training",
            next_step="Set training.held_out above 0",
        )
    return event


def _record(state: ControlState, drop: Interval | None, decision: Decision) -> Record:
    trial = _trial(state)
    return Record(trial.round, state.density, trial.density, drop, decision)


TABLE: dict[tuple[Phase, type[Event]], Callable[[ControlState, Event], Step]] = {
    (Phase.WAITING, RoundClosed): _wait,
    (Phase.WAITING, RunEnding): _end,
    (Phase.BASELINE, RoundClosed): _ask_again,
    (Phase.BASELINE, Evaluated): _measure,
    (Phase.BASELINE, RunEnding): _end,
    (Phase.READY, RoundClosed): _try_next,
    (Phase.READY, RunEnding): _end,
    (Phase.PROPOSING, RoundClosed): _repeat_proposal,
    (Phase.PROPOSING, Proposed): _recover,
    (Phase.PROPOSING, Exhausted): _exhaust,
    (Phase.PROPOSING, RunEnding): _withdraw,
    (Phase.RECOVERING, RoundClosed): _count_down,
    (Phase.RECOVERING, RunEnding): _abandon,
    (Phase.JUDGING, RoundClosed): _ask_again,
    (Phase.JUDGING, Evaluated): _judge,
    (Phase.JUDGING, RunEnding): _abandon,
}

# Evaluations for the report also come when nobody here asked; answers to a proposal come once.
IGNORED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    {(phase, Evaluated) for phase in Phase if phase not in (Phase.BASELINE, Phase.JUDGING)}
    | {(phase, answer) for phase in Phase if phase is not Phase.PROPOSING for answer in (Proposed, Exhausted)}
    | {(Phase.FROZEN, event) for event in EVENTS}
)

assert {(p, e) for p in Phase for e in EVENTS} == TABLE.keys() | IGNORED
assert not TABLE.keys() & IGNORED
