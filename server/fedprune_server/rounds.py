"""The life of a run as a table: (phase, event) -> new state and effects. No socket, no clock, no disk.

A run starts in GATHERING: clients join, and once enough are there (`expect`), or nobody has joined for `settle_s`,
the shards are frozen and the first round opens. In TRAINING the cohort of the round works; each client of the cohort
is *pending* until its update has its receipt (accepted), it says that it cannot (declined), or it has been away for
longer than the grace period (lost, which counts as declined). The round closes when `target` updates are in or nobody
is pending; at its deadline it closes with a quorum, and without one it does what `on_miss` says. FOLDING lasts while
the coordinator aggregates, prunes and commits: the hands do the work and report `Committed`. If the coordinator has
no test data of its own, EVALUATING follows: the clients that took part score the new version on what they held out.
Then the next round opens, or the run ends.

Between rounds a run that has too few clients goes back to GATHERING and says what it waits for; the frozen shards
stay. Whatever happens, every wait has a timer or names the party that it waits for, and a run whose rounds count no
update at all fails loudly instead of finishing with the weights it started from.

The functions below are the cells of `TABLE`. A pair that is missing there is an event that changes nothing in that
phase (a straggler's goodbye while we fold), and is listed in `IGNORED`, so that a forgotten pair is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from math import ceil
from typing import Literal

from fedprune.errors import LocalError
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
    Outcome,
    Say,
    SetTimer,
    Settled,
    StopRequested,
    Warn,
)

# After so many rounds in a row without a single counted update the run fails.
EMPTY_ROUNDS_LIMIT = 3


class Phase(Enum):
    """Where a run stands."""

    GATHERING = "gathering"
    TRAINING = "training"
    FOLDING = "folding"
    EVALUATING = "evaluating"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the run file says about rounds; times in seconds, shares in (0, 1]."""

    rounds: int
    seed: int = 0
    expect: int = 0
    settle_s: float = 5.0
    share: float = 1.0
    over_select: float = 0.0
    quorum: float = 0.5
    min_clients: int = 1
    deadline_s: float = 600.0
    grace_s: float = 30.0
    on_miss: Literal["close", "extend"] = "close"
    late: Literal["wait", "admit"] = "wait"
    clients_evaluate: bool = False
    evaluate_every: int = 1

    def due(self, round_: int) -> bool:
        """Whether the version that this round produced is to be evaluated."""
        return round_ == self.rounds or (self.evaluate_every > 0 and round_ % self.evaluate_every == 0)

    def evaluates(self, round_: int) -> bool:
        """Whether it is due and the clients have to do it."""
        return self.clients_evaluate and self.due(round_)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """All that a run's course depends on. Clients are the coordinator's indices of them."""

    rules: Rules
    phase: Phase = Phase.GATHERING
    round: int = 0
    connected: frozenset[int] = frozenset()
    shards: tuple[int, ...] = ()
    cohort: tuple[int, ...] = ()
    target: int = 0
    accepted: frozenset[int] = frozenset()
    declined: frozenset[int] = frozenset()
    extended: bool = False
    unevaluated: bool = False
    empty_rounds: int = 0
    counted: int = 0
    stopping: str | None = None
    reasons: tuple[str, ...] = field(default=())

    @property
    def pending(self) -> tuple[int, ...]:
        """The clients of the cohort that the round still waits for."""
        return tuple(c for c in self.cohort if c not in self.accepted and c not in self.declined)

    @property
    def candidates(self) -> tuple[int, ...]:
        """The clients that could work now: connected, with a shard."""
        return tuple(c for c in self.shards if c in self.connected)


Step = tuple[RunState, tuple[Effect, ...]]


def step(state: RunState, event: Event) -> Step:
    """One step of a run: the state after `event`, and what to do about it."""
    key = (state.phase, type(event))
    if key in IGNORED:
        return state, ()
    return TABLE[key](state, event)


def choose_cohort(rules: Rules, round_: int, candidates: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The cohort of a round, ascending, and how many updates complete it.

    A draw without replacement that depends on seed, round and candidates only, so that a restarted coordinator
    draws the same cohort. With over-selection more clients work than are waited for.
    """
    target = min(len(candidates), max(rules.min_clients, _share_of(len(candidates), rules.share)))
    size = min(len(candidates), _share_of(target, 1 + rules.over_select))

    def lot(client: int) -> bytes:
        return hashlib.sha256(f"{rules.seed}/{round_}/{client}".encode()).digest()

    return tuple(sorted(sorted(candidates, key=lot)[:size])), target


def _share_of(count: int, share: float) -> int:
    """`share` of `count`, rounded up, but 7 % of 100 is 7 although the product is a hair above it."""
    return ceil(round(count * share, 9))


def _join(state: RunState, event: Event) -> Step:
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
    working = state.phase in (Phase.TRAINING, Phase.EVALUATING) and event.client in state.pending
    greet = Greet(event.client, event.client in shards, working)
    if state.phase is not Phase.GATHERING:
        return state, (away, greet)
    if state.connected.issuperset(state.shards):
        opened, effects = _next_round(state)
        return opened, (away, greet, ClearTimer("settle"), *effects)
    return state, (away, greet, SetTimer("settle", rules.grace_s, Settled()), Say(_waiting(state)))


def _waiting(state: RunState) -> str:
    here = len(state.candidates) if state.shards else len(state.connected)
    need = max(state.rules.min_clients, state.rules.expect if not state.shards else 1)
    return f"waiting for clients: {here} connected, need {need}"


def _leave(state: RunState, event: Event) -> Step:
    assert isinstance(event, Left)
    state = replace(state, connected=state.connected - {event.client})
    if event.client in state.pending and state.phase in (Phase.TRAINING, Phase.EVALUATING):
        timer = SetTimer(f"grace-{event.client}", state.rules.grace_s, GraceOver(event.client))
        return state, (timer, Say(f"client {event.client} is away; waiting {state.rules.grace_s:g} s for it"))
    return state, ()


def _settle(state: RunState, event: Event) -> Step:
    if state.shards:
        return _next_round(state)
    if len(state.connected) < max(1, state.rules.min_clients):
        return state, (Say(_waiting(state)),)
    return _freeze(state)


def _freeze(state: RunState) -> Step:
    shards = tuple(sorted(state.connected))
    opened, effects = _next_round(replace(state, shards=shards))
    return opened, (ClearTimer("settle"), Freeze(shards), *effects)


def _next_round(state: RunState) -> Step:
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
    round_ = state.round + 1
    cohort, target = choose_cohort(state.rules, round_, candidates)
    state = replace(
        state,
        phase=Phase.TRAINING,
        round=round_,
        cohort=cohort,
        target=target,
        accepted=frozenset(),
        declined=frozenset(),
        extended=False,
        reasons=(),
    )
    return state, (OpenRound(round_, cohort), SetTimer("deadline", state.rules.deadline_s, DeadlinePassed()))


def _end_of_rounds(state: RunState) -> Step:
    if state.counted == 0:
        return _end(state, "failed", "no update counted in any round: the model is the one the run began with")
    return _end(state, "finished", f"{state.rules.rounds} rounds done")


def _end(state: RunState, outcome: Outcome, reason: str) -> Step:
    state = replace(state, phase=Phase.ENDED, cohort=())
    return state, (ClearTimer("deadline"), ClearTimer("settle"), EndRun(outcome, reason))


def _accept(state: RunState, event: Event) -> Step:
    assert isinstance(event, Accepted)
    if event.client not in state.cohort:
        return state, ()
    state = replace(state, accepted=state.accepted | {event.client}, declined=state.declined - {event.client})
    return _maybe_close(state)


def _decline(state: RunState, event: Event) -> Step:
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


def _lose(state: RunState, event: Event) -> Step:
    assert isinstance(event, GraceOver)
    if event.client in state.connected:
        return state, ()
    return _decline(state, Declined(event.client, f"away for more than {state.rules.grace_s:g} s"))


def _maybe_close(state: RunState) -> Step:
    if state.phase is Phase.EVALUATING:
        return (state, ()) if state.pending else _close_evaluation(state)
    if len(state.accepted) >= state.target or not state.pending:
        return _close(state)
    return state, ()


def _close(state: RunState) -> Step:
    """Freeze what is there. A round without a single update changes nothing and is counted as empty."""
    missing = tuple(c for c in state.cohort if c not in state.accepted)
    cleared = (ClearTimer("deadline"), *(ClearTimer(f"grace-{c}") for c in missing))
    if not state.accepted:
        return _empty_round(state, cleared)
    state = replace(state, phase=Phase.FOLDING, empty_rounds=0, counted=state.counted + len(state.accepted))
    return state, (*cleared, CloseRound(state.round, missing))


def _empty_round(state: RunState, cleared: tuple[Effect, ...]) -> Step:
    empty = state.empty_rounds + 1
    why = "; ".join(state.reasons) or "no client answered"
    warning = Warn(f"round {state.round} counted no update: {why}")
    state = replace(state, empty_rounds=empty)
    if empty >= EMPTY_ROUNDS_LIMIT:
        ended, effects = _end(state, "failed", f"{empty} rounds in a row counted no update; the last: {why}")
    else:
        ended, effects = _next_round(state)
    return ended, (*cleared, warning, DropRound(state.round), *effects)


def _deadline(state: RunState, event: Event) -> Step:
    if state.phase is Phase.EVALUATING:
        return _close_evaluation(state)
    quorum = max(1, _share_of(state.target, state.rules.quorum))
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


def _committed(state: RunState, event: Event) -> Step:
    return _next_round(replace(state, unevaluated=state.rules.evaluates(state.round)))


def _open_evaluation(state: RunState) -> Step:
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


def _close_evaluation(state: RunState) -> Step:
    cleared = tuple(ClearTimer(f"grace-{c}") for c in state.pending)
    after, effects = _next_round(state)
    return after, (ClearTimer("deadline"), *cleared, CloseEvaluation(state.round), *effects)


def resume(state: RunState) -> Step:
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
    graces = (SetTimer(f"grace-{c}", state.rules.grace_s, GraceOver(c)) for c in state.pending)
    return state, (SetTimer("deadline", state.rules.deadline_s, DeadlinePassed()), *graces)


def _resume_between(state: RunState) -> Step:
    """Between two rounds: nobody is there yet. After the last round nobody is needed, unless to evaluate it."""
    if state.round >= state.rules.rounds and not state.unevaluated:
        return _end_of_rounds(state)
    return state, (SetTimer("settle", state.rules.grace_s, Settled()), Say(_waiting(state)))


def _dismiss(state: RunState, event: Event) -> Step:
    assert isinstance(event, Joined)
    return state, (Dismiss(event.client),)


def _stop_now(state: RunState, event: Event) -> Step:
    assert isinstance(event, StopRequested)
    return _end(state, "stopped", event.reason)


def _stop_after_commit(state: RunState, event: Event) -> Step:
    assert isinstance(event, StopRequested)
    return replace(state, stopping=event.reason), (Say(f"stopping after round {state.round}: {event.reason}"),)


def _break(state: RunState, event: Event) -> Step:
    assert isinstance(event, Broken)
    return _end(state, "failed", event.reason)


Cell = Callable[[RunState, Event], Step]

TABLE: dict[tuple[Phase, type[Event]], Cell] = {
    (Phase.GATHERING, Joined): _join,
    (Phase.GATHERING, Left): _leave,
    (Phase.GATHERING, Settled): _settle,
    (Phase.GATHERING, StopRequested): _stop_now,
    (Phase.GATHERING, Broken): _break,
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
        *((Phase.TRAINING, e) for e in (Settled, Committed)),
        *((Phase.FOLDING, e) for e in (GraceOver, Settled, Accepted, Declined, DeadlinePassed)),
        *((Phase.EVALUATING, e) for e in (Settled, Committed)),
        *((Phase.ENDED, e) for e in EVENTS if e is not Joined),
    }
)

_known = {(p, e) for p in Phase for e in EVENTS}
if _known != set(TABLE) | IGNORED or set(TABLE) & IGNORED:
    raise LocalError("the table of rounds is not complete", seen=_known ^ (set(TABLE) | IGNORED))
