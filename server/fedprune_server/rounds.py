"""The life of a run as a table: (phase, event) -> new state and effects. No socket, no clock, no disk.

A run starts in GATHERING: clients join, and once enough are there (`expect`), or nobody has joined for `settle_s`,
the shards are frozen and the first round opens. In TRAINING the cohort of the round works; each client of the cohort
is *pending* until its update has its receipt (accepted), it says that it cannot (declined), or it has been away for
longer than the grace period (lost, which counts as declined). The round closes when `target` updates are in or nobody
is pending; at its deadline it closes with a quorum, and without one it does what `on_miss` says. FOLDING lasts while
the coordinator aggregates, prunes and commits: the hands do the work and report `Committed`. If the coordinator has
no test data of its own, EVALUATING follows: the clients that took part score the new version on what they held out; or
all do, where a pruning step waits for it. DECIDING lasts while the hands enter what was found and, where the step is
rejected, commit the model as it was before it; they report `Decided`. Then the next round opens, or the run ends.

Where a mask has changed and the model keeps running statistics, REESTIMATING comes before any evaluation: the clients
of the round measure them anew on their data, and in MEASURING the hands make a version of what they found (`Remeasured`).

Where the next mask needs scores that only data can give, SCORING comes before TRAINING: the cohort of the round scores
the version in force, and trains as soon as all have answered or the deadline is there. Before the first round the
scores alone make a round, number 0, that commits a mask and no training; it is the only one that must not be empty.

Between rounds a run that has too few clients goes back to GATHERING and says what it waits for; the frozen shards
stay. So does a run that another process has taken up, until its clients are back or have had `grace_s` for it.
Whatever happens, every wait has a timer or names the party that it waits for, and a run whose rounds count no update
at all fails loudly instead of finishing with the weights it started from.

The cells of `TABLE` live in `membership.py` (who is there), `results.py` (what came in) and `opening.py` (what is next). A pair that is missing there is an event that changes nothing in that
phase (a straggler's goodbye while we fold), and is listed in `IGNORED`, so that a forgotten pair is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedprune.errors import LocalError
from fedprune_server import membership, opening, results
from fedprune_server.course import Course, Phase
from fedprune_server.events import (
    EVENTS,
    Accepted,
    Broken,
    CloseEvaluation,
    CloseReestimation,
    CloseRound,
    Committed,
    DeadlinePassed,
    Decided,
    Declined,
    Dismiss,
    Event,
    GraceOver,
    Joined,
    Left,
    Remeasured,
    Say,
    SetTimer,
    Settled,
    StopRequested,
)

Step = opening.Step


def step(state: Course, event: Event) -> Step:
    """One step of a run: the state after `event`, and what to do about it."""
    key = (state.phase, type(event))
    if key in IGNORED:
        return state, ()
    return TABLE[key](state, event)


def resume(state: Course) -> Step:
    """Go on where an earlier process stopped: give the open round its deadline again and its clients time to return.
    Nothing more is opened before they are all back or that time is over: who is slower to come back than the round in
    hand takes to end would else be missing in the next one, and the model be another than it would have been.

    In FOLDING the accepted set is frozen already, and is folded again: the result is the same bytes. In DECIDING the
    evaluation is, and gives the same verdict.
    """
    if state.phase is Phase.GATHERING:
        return _resume_between(state)
    after, effects = _resume_within(replace(state, returning=True))
    return after, (SetTimer("settle", state.rules.grace_s, Settled()), *effects)


def _resume_within(state: Course) -> Step:
    if state.phase is Phase.DECIDING:
        return state, (CloseEvaluation(state.round),)
    if state.phase is Phase.MEASURING:
        return state, (CloseReestimation(state.round),)
    if state.phase is Phase.FOLDING:
        missing = tuple(c for c in state.cohort if c not in state.accepted)
        return state, (CloseRound(state.round, missing),)
    closed, closing = results.maybe_close(state)
    if closing:
        return closed, closing
    return state, (
        SetTimer("deadline", state.rules.deadline_s, DeadlinePassed()),
        *opening.graces(state, state.pending),
    )


def _resume_between(state: Course) -> Step:
    """Between two rounds: nobody is there yet. After the last round nobody is needed, unless to evaluate it."""
    if state.round >= state.rules.rounds and not (state.unevaluated or state.unmeasured):
        return opening.end_of_rounds(state)
    state = replace(state, returning=bool(state.shards))
    return state, (SetTimer("settle", state.rules.grace_s, Settled()), Say(opening.waiting(state)))


def _dismiss(state: Course, event: Event) -> Step:
    assert isinstance(event, Joined)
    return state, (Dismiss(event.client),)


def _stop_now(state: Course, event: Event) -> Step:
    assert isinstance(event, StopRequested)
    return opening.end_run(state, "stopped", event.reason)


def _stop_after_commit(state: Course, event: Event) -> Step:
    assert isinstance(event, StopRequested)
    return replace(state, stopping=event.reason), (Say(f"stopping after round {state.round}: {event.reason}"),)


def _break_down(state: Course, event: Event) -> Step:
    assert isinstance(event, Broken)
    return opening.end_run(state, "failed", event.reason)


# What the hands report; phases that wait for clients; and phases in which the hands work, with what ends each.
DONE: tuple[type[Event], ...] = (Committed, Remeasured, Decided)
OPEN = (Phase.SCORING, Phase.TRAINING, Phase.REESTIMATING, Phase.EVALUATING)
CLOSED: dict[Phase, type[Event]] = {
    Phase.FOLDING: Committed,
    Phase.MEASURING: Remeasured,
    Phase.DECIDING: Decided,
}

Cell = Callable[[Course, Event], Step]

TABLE: dict[tuple[Phase, type[Event]], Cell] = {
    (Phase.GATHERING, Joined): membership.join,
    (Phase.GATHERING, Left): membership.leave,
    (Phase.GATHERING, Settled): membership.settle,
    (Phase.GATHERING, StopRequested): _stop_now,
    (Phase.GATHERING, Broken): _break_down,
    (Phase.SCORING, Joined): membership.join,
    (Phase.SCORING, Left): membership.leave,
    (Phase.SCORING, GraceOver): results.lose,
    (Phase.SCORING, Accepted): results.accept,
    (Phase.SCORING, Declined): results.decline,
    (Phase.SCORING, DeadlinePassed): results.deadline,
    (Phase.SCORING, StopRequested): _stop_now,
    (Phase.SCORING, Broken): _break_down,
    (Phase.TRAINING, Joined): membership.join,
    (Phase.TRAINING, Left): membership.leave,
    (Phase.TRAINING, GraceOver): results.lose,
    (Phase.TRAINING, Accepted): results.accept,
    (Phase.TRAINING, Declined): results.decline,
    (Phase.TRAINING, DeadlinePassed): results.deadline,
    (Phase.TRAINING, StopRequested): _stop_now,
    (Phase.TRAINING, Broken): _break_down,
    (Phase.FOLDING, Joined): membership.join,
    (Phase.FOLDING, Left): membership.leave,
    (Phase.FOLDING, Committed): results.committed,
    (Phase.FOLDING, StopRequested): _stop_after_commit,
    (Phase.FOLDING, Broken): _break_down,
    (Phase.REESTIMATING, Joined): membership.join,
    (Phase.REESTIMATING, Left): membership.leave,
    (Phase.REESTIMATING, GraceOver): results.lose,
    (Phase.REESTIMATING, Accepted): results.accept,
    (Phase.REESTIMATING, Declined): results.decline,
    (Phase.REESTIMATING, DeadlinePassed): results.deadline,
    (Phase.REESTIMATING, StopRequested): _stop_now,
    (Phase.REESTIMATING, Broken): _break_down,
    (Phase.MEASURING, Joined): membership.join,
    (Phase.MEASURING, Left): membership.leave,
    (Phase.MEASURING, Remeasured): results.remeasured,
    (Phase.MEASURING, StopRequested): _stop_after_commit,
    (Phase.MEASURING, Broken): _break_down,
    (Phase.EVALUATING, Joined): membership.join,
    (Phase.EVALUATING, Left): membership.leave,
    (Phase.EVALUATING, GraceOver): results.lose,
    (Phase.EVALUATING, Accepted): results.accept,
    (Phase.EVALUATING, Declined): results.decline,
    (Phase.EVALUATING, DeadlinePassed): results.deadline,
    (Phase.EVALUATING, StopRequested): _stop_now,
    (Phase.EVALUATING, Broken): _break_down,
    (Phase.DECIDING, Joined): membership.join,
    (Phase.DECIDING, Left): membership.leave,
    (Phase.DECIDING, Decided): results.decided,
    (Phase.DECIDING, StopRequested): _stop_after_commit,
    (Phase.DECIDING, Broken): _break_down,
    (Phase.ENDED, Joined): _dismiss,
    **{(phase, Settled): membership.give_up for phase in (*OPEN, *CLOSED)},
}

IGNORED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    {
        *((Phase.GATHERING, e) for e in (GraceOver, Accepted, Declined, DeadlinePassed, *DONE)),
        *((phase, e) for phase in OPEN for e in DONE),
        *((phase, e) for phase in CLOSED for e in (GraceOver, Accepted, Declined, DeadlinePassed)),
        *((phase, e) for phase, done in CLOSED.items() for e in DONE if e is not done),
        *((Phase.ENDED, e) for e in EVENTS if e is not Joined),
    }
)

_known = {(p, e) for p in Phase for e in EVENTS}
if _known != set(TABLE) | IGNORED or set(TABLE) & IGNORED:
    raise LocalError("the table of rounds is not complete", seen=_known ^ (set(TABLE) | IGNORED))
