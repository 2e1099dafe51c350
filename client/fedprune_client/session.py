"""What a client is doing, as a table: (phase, event) -> new state and effects. No socket, no clock, no torch.

A client does one assignment at a time: it pulls the version that the assignment names, unless it holds it, works,
and submits the sealed result until it has a receipt. Connections come and go underneath without showing here: the
transport repeats a transfer until it succeeds or is refused for good. What does show is a coordinator that came back
and sends an assignment again. If that is the one in hand, the client goes on; if its result is already sealed, it is
submitted again and never trained again; if it is another one, the old work is abandoned. Only a result that is
being submitted is never abandoned: whether it counted must be known before the next one is made, because what it
left out depends on it. Later work waits for that answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from fedprune.assignment import Assignment
from fedprune.errors import LocalError
from fedprune.tensor import Version


class Phase(Enum):
    """Where the client stands."""

    WAITING = "waiting"
    PULLING = "pulling"
    WORKING = "working"
    SUBMITTING = "submitting"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class Started(Event):
    """The coordinator said which run it is, and which share of the data is ours."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Assigned(Event):
    """There is work. `sealed`: its result already lies on our disk."""

    assignment: Assignment
    sealed: bool


@dataclass(frozen=True, slots=True)
class Pulled(Event):
    """We hold this version now."""

    version: Version


@dataclass(frozen=True, slots=True)
class Worked(Event):
    """The result of the assignment is sealed."""

    assignment_id: int


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The assignment in hand cannot be done, for this reason."""

    assignment_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Receipted(Event):
    """The coordinator answered for the result: it counts, or it came too late."""

    assignment_id: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """The coordinator does not want this assignment any more."""

    assignment_id: int


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    """The run is over; with `more`, another one follows."""

    more: bool


EVENTS: tuple[type[Event], ...] = (Started, Assigned, Pulled, Worked, Failed, Receipted, Cancelled, RunEnded)


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that the hands must do."""


@dataclass(frozen=True, slots=True)
class Prepare(Effect):
    """Load our share of the data and build the model; forget what belonged to another run."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Pull(Effect):
    """Bring the model to the version of this assignment."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Work(Effect):
    """Do it, and seal the result."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Submit(Effect):
    """Send the sealed result until it has its receipt."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Settle(Effect):
    """The receipt is here: the residual moves if the update counts, the sealed file can go."""

    assignment_id: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Decline(Effect):
    """Tell the coordinator that it need not wait."""

    assignment_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Abandon(Effect):
    """Stop what is going on for this assignment."""

    assignment_id: int


@dataclass(frozen=True, slots=True)
class GoHome(Effect):
    """No more work: close the connection and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """All that a client's course depends on."""

    phase: Phase = Phase.WAITING
    run_id: str = ""
    held: Version | None = None
    assignment: Assignment | None = None
    queued: Assigned | None = None
    # The last one that has its receipt. A coordinator that sent it again may not have known yet.
    settled: int = 0

    def in_hand(self, assignment_id: int) -> bool:
        """Whether this is the assignment being done."""
        return self.assignment is not None and self.assignment.assignment_id == assignment_id


Step = tuple[SessionState, tuple[Effect, ...]]


def step(state: SessionState, event: Event) -> Step:
    """One step of a session: the state after `event`, and what to do about it."""
    return TABLE[state.phase, type(event)](state, event)


def _ignore(state: SessionState, event: Event) -> Step:
    return state, ()


def _start(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Started)
    if event.run_id == state.run_id:
        return state, ()
    fresh = SessionState(run_id=event.run_id)
    return fresh, (*_abandon(state), Prepare(event.run_id))


def _abandon(state: SessionState) -> tuple[Effect, ...]:
    return () if state.assignment is None else (Abandon(state.assignment.assignment_id),)


def _assign(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Assigned)
    assignment = event.assignment
    if state.in_hand(assignment.assignment_id) or assignment.assignment_id == state.settled:
        return state, ()
    given_up = _abandon(state)
    if event.sealed:
        return replace(state, phase=Phase.SUBMITTING, assignment=assignment), (*given_up, Submit(assignment))
    if state.held == assignment.version:
        return replace(state, phase=Phase.WORKING, assignment=assignment), (*given_up, Work(assignment))
    return replace(state, phase=Phase.PULLING, assignment=assignment), (*given_up, Pull(assignment))


def _queue(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Assigned)
    if state.in_hand(event.assignment.assignment_id):
        return state, ()
    return replace(state, queued=event), ()


def _unqueue(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Cancelled)
    waits = state.queued is not None and state.queued.assignment.assignment_id == event.assignment_id
    return (replace(state, queued=None), ()) if waits else (state, ())


def _free(state: SessionState, effect: Effect) -> Step:
    """The assignment in hand is over; go on with the one that waited, if any."""
    waiting = replace(state, phase=Phase.WAITING, assignment=None, queued=None)
    if state.queued is None:
        return waiting, (effect,)
    after, effects = _assign(waiting, state.queued)
    return after, (effect, *effects)


def _pulled(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Pulled)
    assert state.assignment is not None
    if event.version != state.assignment.version:
        return replace(state, held=event.version), ()
    return replace(state, phase=Phase.WORKING, held=event.version), (Work(state.assignment),)


def _worked(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Worked)
    if state.assignment is None or not state.in_hand(event.assignment_id):
        return state, ()
    return replace(state, phase=Phase.SUBMITTING), (Submit(state.assignment),)


def _failed(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Failed)
    if not state.in_hand(event.assignment_id):
        return state, ()
    return _free(state, Decline(event.assignment_id, event.reason))


def _receipted(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Receipted)
    if not state.in_hand(event.assignment_id):
        return state, ()
    return _free(replace(state, settled=event.assignment_id), Settle(event.assignment_id, event.accepted))


def _cancelled(state: SessionState, event: Event) -> Step:
    assert isinstance(event, Cancelled)
    if not state.in_hand(event.assignment_id):
        return state, ()
    return replace(state, phase=Phase.WAITING, assignment=None), (Abandon(event.assignment_id),)


def _run_ended(state: SessionState, event: Event) -> Step:
    assert isinstance(event, RunEnded)
    if event.more:
        return SessionState(), _abandon(state)
    return SessionState(phase=Phase.GONE), (*_abandon(state), GoHome())


Cell = Callable[[SessionState, Event], Step]

_BUSY = (Phase.PULLING, Phase.WORKING, Phase.SUBMITTING)

TABLE: dict[tuple[Phase, type[Event]], Cell] = {
    **{(phase, Started): _start for phase in (Phase.WAITING, *_BUSY)},
    **{(phase, Assigned): _assign for phase in (Phase.WAITING, Phase.PULLING, Phase.WORKING)},
    (Phase.SUBMITTING, Assigned): _queue,
    (Phase.SUBMITTING, Cancelled): _unqueue,
    **{(phase, RunEnded): _run_ended for phase in (Phase.WAITING, *_BUSY)},
    **{(phase, Cancelled): _cancelled for phase in (Phase.PULLING, Phase.WORKING)},
    **{(phase, Failed): _failed for phase in _BUSY},
    (Phase.PULLING, Pulled): _pulled,
    (Phase.WORKING, Worked): _worked,
    (Phase.SUBMITTING, Receipted): _receipted,
    # What an abandoned piece of work still reports.
    **{(Phase.WAITING, event): _ignore for event in (Pulled, Worked, Failed, Receipted, Cancelled)},
    **{(Phase.PULLING, event): _ignore for event in (Worked, Receipted)},
    **{(Phase.WORKING, event): _ignore for event in (Pulled, Receipted)},
    **{(Phase.SUBMITTING, event): _ignore for event in (Pulled, Worked)},
    **{(Phase.GONE, event): _ignore for event in EVENTS},
}

if set(TABLE) != {(phase, event) for phase in Phase for event in EVENTS}:
    raise LocalError("the table of sessions is not complete", seen=set(TABLE))
