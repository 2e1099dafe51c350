"""What comes after a committed version: the next round, an evaluation, a wait for clients, or the end. Cells of `rounds.py`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fedprune_server.course import Course, Phase, choose_cohort
from fedprune_server.events import (
    ClearTimer,
    DeadlinePassed,
    Effect,
    EndRun,
    GraceOver,
    OpenEvaluation,
    OpenReestimation,
    OpenRound,
    OpenScoring,
    Outcome,
    Say,
    SetTimer,
)

Step = tuple[Course, tuple[Effect, ...]]


def next_round(state: Course) -> Step:
    """Open the next round, or end, or wait for clients: the only way forward from a committed version."""
    if state.stopping is not None:
        return end_run(state, "stopped", state.stopping)
    if state.round >= state.rules.rounds and not (state.unmeasured or state.unevaluated):
        return end_of_rounds(state)
    if state.returning and not state.complete:
        return _wait(state)
    candidates = state.candidates
    if state.unmeasured and candidates:
        state = _gather_behind(replace(state, unmeasured=False), Phase.REESTIMATING)
        return state, (OpenReestimation(state.round, state.cohort), _deadline(state))
    if state.unevaluated and candidates:
        state = _gather_behind(replace(state, unevaluated=False, judged=False), Phase.EVALUATING, all_=state.judged)
        return state, (OpenEvaluation(state.round, state.cohort), _deadline(state))
    if state.round >= state.rules.rounds:
        return end_of_rounds(state)
    if len(candidates) < max(1, state.rules.min_clients):
        return _wait(replace(state, cohort=()))
    if 0 in state.rules.scored and not state.primed:
        return _open_work(state, Phase.SCORING, 0, candidates, len(candidates))
    round_ = state.round + 1
    cohort, target = choose_cohort(state.rules, round_, candidates)
    phase = Phase.SCORING if round_ in state.rules.scored else Phase.TRAINING
    return _open_work(state, phase, round_, cohort, target)


def _wait(state: Course) -> Step:
    return replace(state, phase=Phase.GATHERING), (Say(waiting(state)),)


def _open_work(state: Course, phase: Phase, round_: int, cohort: tuple[int, ...], target: int) -> Step:
    state = replace(
        state,
        phase=phase,
        round=round_,
        cohort=cohort,
        target=target,
        accepted=frozenset(),
        declined=frozenset(),
        extended=False,
        reasons=(),
    )
    opened = OpenScoring(round_, cohort) if phase is Phase.SCORING else OpenRound(round_, cohort)
    return state, (opened, _deadline(state))


def _gather_behind(state: Course, phase: Phase, *, all_: bool = False) -> Course:
    """The clients of the round work on its version once more; whoever is there, if they have all gone. A pruning step is
    judged by all, so that before and after are pairs."""
    worked = () if all_ else tuple(c for c in state.cohort if c in state.connected)
    cohort = worked or state.candidates
    return replace(state, phase=phase, cohort=cohort, accepted=frozenset(), declined=frozenset(), reasons=())


def _deadline(state: Course) -> SetTimer:
    return SetTimer("deadline", state.rules.deadline_s, DeadlinePassed())


def graces(state: Course, clients: Iterable[int]) -> tuple[Effect, ...]:
    return tuple(SetTimer(f"grace-{c}", state.rules.grace_s, GraceOver(c)) for c in clients)


def waiting(state: Course) -> str:
    if state.returning:
        away = len(state.shards) - len(state.candidates)
        return f"waiting up to {state.rules.grace_s:g} s for clients to come back: {away} of {len(state.shards)} away"
    here = len(state.candidates) if state.shards else len(state.connected)
    need = max(state.rules.min_clients, state.rules.expect if not state.shards else 1)
    return f"waiting for clients: {here} connected, need {need}"


def end_of_rounds(state: Course) -> Step:
    if state.counted == 0:
        return end_run(state, "failed", "no update counted in any round: the model is the one the run began with")
    return end_run(state, "finished", f"{state.rules.rounds} rounds done")


def end_run(state: Course, outcome: Outcome, reason: str) -> Step:
    state = replace(state, phase=Phase.ENDED, cohort=())
    return state, (ClearTimer("deadline"), ClearTimer("settle"), EndRun(outcome, reason))
