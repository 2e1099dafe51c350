"""What clients answer, and when that is enough to close what is open. Cells of `rounds.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedprune_server.course import Course, Phase, share_of
from fedprune_server.events import (
    Accepted,
    ClearTimer,
    CloseEvaluation,
    CloseReestimation,
    CloseRound,
    Committed,
    DeadlinePassed,
    Declined,
    DropRound,
    Effect,
    Event,
    ExtendRound,
    GraceOver,
    OpenRound,
    SetTimer,
    Warn,
)
from fedprune_server.opening import Step, end_run, graces, next_round

# After so many rounds in a row without a single counted update the run fails.
EMPTY_ROUNDS_LIMIT = 3


def accept(state: Course, event: Event) -> Step:
    assert isinstance(event, Accepted)
    if event.client not in state.cohort:
        return state, ()
    state = replace(state, accepted=state.accepted | {event.client}, declined=state.declined - {event.client})
    return maybe_close(state)


def decline(state: Course, event: Event) -> Step:
    assert isinstance(event, Declined)
    if event.client not in state.pending:
        return state, ()
    state = replace(
        state,
        declined=state.declined | {event.client},
        reasons=(*state.reasons, f"client {event.client}: {event.reason}"),
    )
    after, effects = maybe_close(state)
    return after, (Warn(f"round {state.round}: client {event.client} did not contribute: {event.reason}"), *effects)


def maybe_close(state: Course) -> Step:
    if state.phase in CLOSES:
        return (state, ()) if state.pending else CLOSES[state.phase](state)
    if len(state.accepted) >= state.target or not state.pending:
        return _close_round(state)
    return state, ()


def _close_round(state: Course) -> Step:
    """Freeze what is there. A round without a single update changes nothing and is counted as empty."""
    missing = tuple(c for c in state.cohort if c not in state.accepted)
    cleared = (ClearTimer("deadline"), *(ClearTimer(f"grace-{c}") for c in missing))
    if not state.accepted:
        return _empty_round(state, cleared)
    state = replace(state, phase=Phase.FOLDING, empty_rounds=0, counted=state.counted + len(state.accepted))
    return state, (*cleared, CloseRound(state.round, missing))


def _close_scoring(state: Course) -> Step:
    """The cohort trains now, whoever of it has scored. Who is away gets its time again."""
    cleared = (ClearTimer("deadline"), *(ClearTimer(f"grace-{c}") for c in state.pending))
    if state.round == 0:
        return _close_priming(state, cleared)
    state = replace(state, phase=Phase.TRAINING, accepted=frozenset(), declined=frozenset(), reasons=())
    opened = OpenRound(state.round, state.cohort, True)
    timer = SetTimer("deadline", state.rules.deadline_s, DeadlinePassed())
    away = [c for c in state.cohort if c not in state.connected]
    return state, (*cleared, opened, timer, *graces(state, away))


def _close_priming(state: Course, cleared: tuple[Effect, ...]) -> Step:
    if not state.accepted:
        why = "; ".join(state.reasons) or "no client answered"
        ended, effects = end_run(state, "failed", f"nobody could score the first model: {why}")
        return ended, (*cleared, *effects)
    missing = tuple(c for c in state.cohort if c not in state.accepted)
    return replace(state, phase=Phase.FOLDING), (*cleared, CloseRound(0, missing))


def _close_reestimation(state: Course) -> Step:
    after = replace(state, phase=Phase.MEASURING)
    return after, (*_cleared(state), CloseReestimation(state.round))


def _close_evaluation(state: Course) -> Step:
    after = replace(state, phase=Phase.DECIDING)
    return after, (*_cleared(state), CloseEvaluation(state.round))


def _cleared(state: Course) -> tuple[Effect, ...]:
    return ClearTimer("deadline"), *(ClearTimer(f"grace-{c}") for c in state.pending)


def remeasured(state: Course, event: Event) -> Step:
    """The statistics are those of the network as it is now: on to its evaluation, or to the next round."""
    return next_round(state)


def decided(state: Course, event: Event) -> Step:
    """What clients found is entered, and the model is what it is to be: on with it."""
    return next_round(state)


def _empty_round(state: Course, cleared: tuple[Effect, ...]) -> Step:
    empty = state.empty_rounds + 1
    why = "; ".join(state.reasons) or "no client answered"
    warning = Warn(f"round {state.round} counted no update: {why}")
    state = replace(state, empty_rounds=empty)
    if empty >= EMPTY_ROUNDS_LIMIT:
        ended, effects = end_run(state, "failed", f"{empty} rounds in a row counted no update; the last: {why}")
    else:
        ended, effects = next_round(state)
    return ended, (*cleared, warning, DropRound(state.round), *effects)


def deadline(state: Course, event: Event) -> Step:
    if state.phase in CLOSES:
        return CLOSES[state.phase](state)
    quorum = max(1, share_of(state.target, state.rules.quorum))
    late = f"round {state.round}: {len(state.accepted)} of {state.target} updates at the deadline"
    if len(state.accepted) >= quorum:
        closed, effects = _close_round(state)
        return closed, (Warn(late), *effects)
    if state.rules.on_miss == "extend" and not state.extended:
        timer = SetTimer("deadline", state.rules.deadline_s, DeadlinePassed())
        return replace(state, extended=True), (
            Warn(f"{late}, quorum is {quorum}: extended by {state.rules.deadline_s:g} s"),
            ExtendRound(state.round, 2 * state.rules.deadline_s),
            timer,
        )
    closed, effects = _close_round(state)
    return closed, (Warn(f"{late}, quorum is {quorum}: closed with what is there"), *effects)


def committed(state: Course, event: Event) -> Step:
    assert isinstance(event, Committed)
    if state.round == 0:
        return next_round(replace(state, primed=True))
    unevaluated = event.judge or state.rules.evaluates(state.round)
    return next_round(replace(state, unmeasured=event.remeasure, unevaluated=unevaluated, judged=event.judge))


def lose(state: Course, event: Event) -> Step:
    assert isinstance(event, GraceOver)
    if event.client in state.connected:
        return state, ()
    return decline(state, Declined(event.client, f"away for more than {state.rules.grace_s:g} s"))


# Phases that end when everyone has answered, or at the deadline with what is there.
CLOSES: dict[Phase, Callable[[Course], Step]] = {
    Phase.SCORING: _close_scoring,
    Phase.REESTIMATING: _close_reestimation,
    Phase.EVALUATING: _close_evaluation,
}
