"""The life of a run as a table: (phase, event) -> new state and effects. No socket, no clock, no disk.

A run starts in GATHERING: clients join, and once enough are there (`expect`), or nobody has joined for `settle_s`,
the shards are frozen and the first round opens. In TRAINING the cohort of the round works; each client of the cohort
is *pending* until its update has its receipt (accepted), it says that it cannot (declined), or it has been away for
longer than the grace period (lost, which counts as declined). The round closes when `target` updates are in or nobody
is pending; at its deadline it closes with a quorum, and without one it does what `on_miss` says. FOLDING lasts while
the coordinator aggregates, prunes and commits: the hands do the work and report `Committed`. If the coordinator has
no test data of its own, EVALUATING follows: the clients that took part score the new version on what they held out.
Then the next round opens, or the run ends.

Where the next mask needs scores that only data can give, SCORING comes before TRAINING: the cohort of the round scores
the version in force, and trains as soon as all have answered or the deadline is there. Before the first round the
scores alone make a round, number 0, that commits a mask and no training; it is the only one that must not be empty.

Between rounds a run that has too few clients goes back to GATHERING and says what it waits for; the frozen shards
stay. Whatever happens, every wait has a timer or names the party that it waits for, and a run whose rounds count no
update at all fails loudly instead of finishing with the weights it started from.

The functions below are the cells of `TABLE`. A pair that is missing there is an event that changes nothing in that
phase (a straggler's goodbye while we fold), and is listed in `IGNORED`, so that a forgotten pair is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from fedprune.errors import LocalError
from fedprune_server.course import Course, Phase, choose_cohort, share_of
from fedprune_server.events import (
    EVENTS,
    Accepted,
    Broken,
    ClearTimer,
    CloseEvaluation,
    CloseRound,
    Committed,
    DeadlinePassed,
    Declined,
    Dismiss,
    DropRound,
    Effect,
    EndRun,
    Event,
    ExtendRound,
    Freeze,
    GraceOver,
    Greet,
    Joined,
    Left,
    OpenEvaluation,
    OpenRound,
    OpenScoring,
    Outcome,
    Say,
    SetTimer,
    Settled,
    StopRequested,
    Warn,
)

# After so many rounds in a row without a single counted update the run fails.
EMPTY_ROUNDS_LIMIT = 3


Step = tuple[Course, tuple[Effect, ...]]


def step(state: Course, event: Event) -> Step:
    """One step of a run: the state after `event`, and what to do about it."""
    key = (state.phase, type(event))
    if key in IGNORED:
        return state, ()
    return TABLE[key](state, event)


def _join(state: Course, event: Event) -> Step:
    assert isinstance(event, Joined)
    rules = state.rules
    connected = state.connected | {event.client}
    away = ClearTimer(f"grace-{event.client}")
    if not state.shards:
        state = replace(state, connected=connected)
        greet = Greet(event.client, True, False)
        if rules.expect and len(connected) >= rules.expect:
            opened, effects = _freeze(state)
            return opened, (away, greet, *effects)
        timer = () if rules.expect else (SetTimer("settle", rules.settle_s, Settled()),)
        return state, (away, greet, *timer, Say(_waiting(state)))
    shards = state.shards
    if event.client not in shards and rules.late == "admit":
        shards = (*shards, event.client)
    state = replace(state, connected=connected, shards=shards)
    working = state.waits and event.client in state.pending
    greet = Greet(event.client, event.client in shards, working)
    if state.phase is not Phase.GATHERING:
        return state, (away, greet)
    if state.connected.issuperset(state.shards):
        opened, effects = _next_round(state)
        return opened, (away, greet, ClearTimer("settle"), *effects)
    return state, (away, greet, SetTimer("settle", rules.grace_s, Settled()), Say(_waiting(state)))


def _waiting(state: Course) -> str:
    here = len(state.candidates) if state.shards else len(state.connected)
    need = max(state.rules.min_clients, state.rules.expect if not state.shards else 1)
    return f"waiting for clients: {here} connected, need {need}"


def _leave(state: Course, event: Event) -> Step:
    assert isinstance(event, Left)
    state = replace(state, connected=state.connected - {event.client})
    if event.client in state.pending and state.waits:
        timer = SetTimer(f"grace-{event.client}", state.rules.grace_s, GraceOver(event.client))
        return state, (timer, Say(f"client {event.client} is away; waiting {state.rules.grace_s:g} s for it"))
    return state, ()


def _settle(state: Course, event: Event) -> Step:
    if state.shards:
        return _next_round(state)
    if len(state.connected) < max(1, state.rules.min_clients):
        return state, (Say(_waiting(state)),)
    return _freeze(state)


def _freeze(state: Course) -> Step:
    shards = tuple(sorted(state.connected))
    opened, effects = _next_round(replace(state, shards=shards))
    return opened, (ClearTimer("settle"), Freeze(shards), *effects)


def _next_round(state: Course) -> Step:
    """Open the next round, or end, or wait for clients: the only way forward from a committed version."""
    if state.stopping is not None:
        return _end(state, "stopped", state.stopping)
    candidates = state.candidates
    if state.unevaluated and candidates:
        return _open_evaluation(state)
    if state.round >= state.rules.rounds:
        return _end_of_rounds(state)
    if len(candidates) < max(1, state.rules.min_clients):
        state = replace(state, phase=Phase.GATHERING, cohort=())
        return state, (Say(_waiting(state)),)
    if 0 in state.rules.scored and not state.primed:
        return _open_work(state, Phase.SCORING, 0, candidates, len(candidates))
    round_ = state.round + 1
    cohort, target = choose_cohort(state.rules, round_, candidates)
    phase = Phase.SCORING if round_ in state.rules.scored else Phase.TRAINING
    return _open_work(state, phase, round_, cohort, target)


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
    return state, (opened, SetTimer("deadline", state.rules.deadline_s, DeadlinePassed()))


def _close_scoring(state: Course) -> Step:
    """The cohort trains now, whoever of it has scored. Who is away gets its time again."""
    cleared = (ClearTimer("deadline"), *(ClearTimer(f"grace-{c}") for c in state.pending))
    if state.round == 0:
        return _close_priming(state, cleared)
    state = replace(state, phase=Phase.TRAINING, accepted=frozenset(), declined=frozenset(), reasons=())
    opened = OpenRound(state.round, state.cohort, True)
    timer = SetTimer("deadline", state.rules.deadline_s, DeadlinePassed())
    away = [c for c in state.cohort if c not in state.connected]
    return state, (*cleared, opened, timer, *_graces(state, away))


def _close_priming(state: Course, cleared: tuple[Effect, ...]) -> Step:
    if not state.accepted:
        why = "; ".join(state.reasons) or "no client answered"
        ended, effects = _end(state, "failed", f"nobody could score the first model: {why}")
        return ended, (*cleared, *effects)
    missing = tuple(c for c in state.cohort if c not in state.accepted)
    return replace(state, phase=Phase.FOLDING), (*cleared, CloseRound(0, missing))


def _graces(state: Course, clients: Iterable[int]) -> tuple[Effect, ...]:
    return tuple(SetTimer(f"grace-{c}", state.rules.grace_s, GraceOver(c)) for c in clients)


def _end_of_rounds(state: Course) -> Step:
    if state.counted == 0:
        return _end(state, "failed", "no update counted in any round: the model is the one the run began with")
    return _end(state, "finished", f"{state.rules.rounds} rounds done")


def _end(state: Course, outcome: Outcome, reason: str) -> Step:
    state = replace(state, phase=Phase.ENDED, cohort=())
    return state, (ClearTimer("deadline"), ClearTimer("settle"), EndRun(outcome, reason))


def _accept(state: Course, event: Event) -> Step:
    assert isinstance(event, Accepted)
    if event.client not in state.cohort:
        return state, ()
    state = replace(state, accepted=state.accepted | {event.client}, declined=state.declined - {event.client})
    return _maybe_close(state)


def _decline(state: Course, event: Event) -> Step:
    assert isinstance(event, Declined)
    if event.client not in state.pending:
        return state, ()
    state = replace(
        state,
        declined=state.declined | {event.client},
        reasons=(*state.reasons, f"client {event.client}: {event.reason}"),
    )
    after, effects = _maybe_close(state)
    return after, (Warn(f"round {state.round}: client {event.client} did not contribute: {event.reason}"), *effects)


def _lose(state: Course, event: Event) -> Step:
    assert isinstance(event, GraceOver)
    if event.client in state.connected:
        return state, ()
    return _decline(state, Declined(event.client, f"away for more than {state.rules.grace_s:g} s"))


def _maybe_close(state: Course) -> Step:
    if state.phase in CLOSES:
        return (state, ()) if state.pending else CLOSES[state.phase](state)
    if len(state.accepted) >= state.target or not state.pending:
        return _close(state)
    return state, ()


def _close(state: Course) -> Step:
    """Freeze what is there. A round without a single update changes nothing and is counted as empty."""
    missing = tuple(c for c in state.cohort if c not in state.accepted)
    cleared = (ClearTimer("deadline"), *(ClearTimer(f"grace-{c}") for c in missing))
    if not state.accepted:
        return _empty_round(state, cleared)
    state = replace(state, phase=Phase.FOLDING, empty_rounds=0, counted=state.counted + len(state.accepted))
    return state, (*cleared, CloseRound(state.round, missing))


def _empty_round(state: Course, cleared: tuple[Effect, ...]) -> Step:
    empty = state.empty_rounds + 1
    why = "; ".join(state.reasons) or "no client answered"
    warning = Warn(f"round {state.round} counted no update: {why}")
    state = replace(state, empty_rounds=empty)
    if empty >= EMPTY_ROUNDS_LIMIT:
        ended, effects = _end(state, "failed", f"{empty} rounds in a row counted no update; the last: {why}")
    else:
        ended, effects = _next_round(state)
    return ended, (*cleared, warning, DropRound(state.round), *effects)


def _deadline(state: Course, event: Event) -> Step:
    if state.phase in CLOSES:
        return CLOSES[state.phase](state)
    quorum = max(1, share_of(state.target, state.rules.quorum))
    late = f"round {state.round}: {len(state.accepted)} of {state.target} updates at the deadline"
    if len(state.accepted) >= quorum:
        closed, effects = _close(state)
        return closed, (Warn(late), *effects)
    if state.rules.on_miss == "extend" and not state.extended:
        timer = SetTimer("deadline", state.rules.deadline_s, DeadlinePassed())
        return replace(state, extended=True), (
            Warn(f"{late}, quorum is {quorum}: extended by {state.rules.deadline_s:g} s"),
            ExtendRound(state.round, 2 * state.rules.deadline_s),
            timer,
        )
    closed, effects = _close(state)
    return closed, (Warn(f"{late}, quorum is {quorum}: closed with what is there"), *effects)


def _committed(state: Course, event: Event) -> Step:
    if state.round == 0:
        return _next_round(replace(state, primed=True))
    return _next_round(replace(state, unevaluated=state.rules.evaluates(state.round)))


def _open_evaluation(state: Course) -> Step:
    """The clients of the round score its version; whoever is there, if they have all gone."""
    cohort = tuple(c for c in state.cohort if c in state.connected) or state.candidates
    state = replace(
        state,
        phase=Phase.EVALUATING,
        cohort=cohort,
        accepted=frozenset(),
        declined=frozenset(),
        unevaluated=False,
        reasons=(),
    )
    timer = SetTimer("deadline", state.rules.deadline_s, DeadlinePassed())
    return state, (OpenEvaluation(state.round, cohort), timer)


def _close_evaluation(state: Course) -> Step:
    cleared = tuple(ClearTimer(f"grace-{c}") for c in state.pending)
    after, effects = _next_round(state)
    return after, (ClearTimer("deadline"), *cleared, CloseEvaluation(state.round), *effects)


def resume(state: Course) -> Step:
    """Go on where an earlier process stopped: give the open round its deadline again and its clients time to return.

    In FOLDING the accepted set is frozen already, and is folded again: the result is the same bytes.
    """
    if state.phase is Phase.FOLDING:
        missing = tuple(c for c in state.cohort if c not in state.accepted)
        return state, (CloseRound(state.round, missing),)
    if state.phase is Phase.GATHERING:
        return _resume_between(state)
    closed, closing = _maybe_close(state)
    if closing:
        return closed, closing
    return state, (SetTimer("deadline", state.rules.deadline_s, DeadlinePassed()), *_graces(state, state.pending))


def _resume_between(state: Course) -> Step:
    """Between two rounds: nobody is there yet. After the last round nobody is needed, unless to evaluate it."""
    if state.round >= state.rules.rounds and not state.unevaluated:
        return _end_of_rounds(state)
    return state, (SetTimer("settle", state.rules.grace_s, Settled()), Say(_waiting(state)))


def _dismiss(state: Course, event: Event) -> Step:
    assert isinstance(event, Joined)
    return state, (Dismiss(event.client),)


def _stop_now(state: Course, event: Event) -> Step:
    assert isinstance(event, StopRequested)
    return _end(state, "stopped", event.reason)


def _stop_after_commit(state: Course, event: Event) -> Step:
    assert isinstance(event, StopRequested)
    return replace(state, stopping=event.reason), (Say(f"stopping after round {state.round}: {event.reason}"),)


def _break(state: Course, event: Event) -> Step:
    assert isinstance(event, Broken)
    return _end(state, "failed", event.reason)


# Phases that end when everyone has answered, or at the deadline with what is there.
CLOSES: dict[Phase, Callable[[Course], Step]] = {
    Phase.SCORING: _close_scoring,
    Phase.EVALUATING: _close_evaluation,
}

Cell = Callable[[Course, Event], Step]

TABLE: dict[tuple[Phase, type[Event]], Cell] = {
    (Phase.GATHERING, Joined): _join,
    (Phase.GATHERING, Left): _leave,
    (Phase.GATHERING, Settled): _settle,
    (Phase.GATHERING, StopRequested): _stop_now,
    (Phase.GATHERING, Broken): _break,
    (Phase.SCORING, Joined): _join,
    (Phase.SCORING, Left): _leave,
    (Phase.SCORING, GraceOver): _lose,
    (Phase.SCORING, Accepted): _accept,
    (Phase.SCORING, Declined): _decline,
    (Phase.SCORING, DeadlinePassed): _deadline,
    (Phase.SCORING, StopRequested): _stop_now,
    (Phase.SCORING, Broken): _break,
    (Phase.TRAINING, Joined): _join,
    (Phase.TRAINING, Left): _leave,
    (Phase.TRAINING, GraceOver): _lose,
    (Phase.TRAINING, Accepted): _accept,
    (Phase.TRAINING, Declined): _decline,
    (Phase.TRAINING, DeadlinePassed): _deadline,
    (Phase.TRAINING, StopRequested): _stop_now,
    (Phase.TRAINING, Broken): _break,
    (Phase.FOLDING, Joined): _join,
    (Phase.FOLDING, Left): _leave,
    (Phase.FOLDING, Committed): _committed,
    (Phase.FOLDING, StopRequested): _stop_after_commit,
    (Phase.FOLDING, Broken): _break,
    (Phase.EVALUATING, Joined): _join,
    (Phase.EVALUATING, Left): _leave,
    (Phase.EVALUATING, GraceOver): _lose,
    (Phase.EVALUATING, Accepted): _accept,
    (Phase.EVALUATING, Declined): _decline,
    (Phase.EVALUATING, DeadlinePassed): _deadline,
    (Phase.EVALUATING, StopRequested): _stop_now,
    (Phase.EVALUATING, Broken): _break,
    (Phase.ENDED, Joined): _dismiss,
}

IGNORED: frozenset[tuple[Phase, type[Event]]] = frozenset(
    {
        *((Phase.GATHERING, e) for e in (GraceOver, Accepted, Declined, DeadlinePassed, Committed)),
        *((Phase.SCORING, e) for e in (Settled, Committed)),
        *((Phase.TRAINING, e) for e in (Settled, Committed)),
        *((Phase.FOLDING, e) for e in (GraceOver, Settled, Accepted, Declined, DeadlinePassed)),
        *((Phase.EVALUATING, e) for e in (Settled, Committed)),
        *((Phase.ENDED, e) for e in EVENTS if e is not Joined),
    }
)

_known = {(p, e) for p in Phase for e in EVENTS}
if _known != set(TABLE) | IGNORED or set(TABLE) & IGNORED:
    raise LocalError("the table of rounds is not complete", seen=_known ^ (set(TABLE) | IGNORED))
