"""What can happen to a run from outside (events), and what it asks the outside to do (effects).

Plain values: `rounds.py` turns the one into the other, the coordinator's hands carry them. Clients are named by the
index that the store gave their identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened outside."""


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """A client opened its work stream: the first time, or again after it was away."""

    client: int


@dataclass(frozen=True, slots=True)
class Left(Event):
    """A client's work stream closed."""

    client: int


@dataclass(frozen=True, slots=True)
class GraceOver(Event):
    """A client that left has been away for `grace_s`."""

    client: int


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """Nobody has joined for `settle_s`."""


@dataclass(frozen=True, slots=True)
class Accepted(Event):
    """A client's result for the open round has its receipt."""

    client: int


@dataclass(frozen=True, slots=True)
class Declined(Event):
    """A client said that it cannot do its assignment, or its result was refused."""

    client: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed(Event):
    """The open round has lasted for `deadline_s`."""


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """The round's new version is durable; with `remeasure` its running statistics belong to the network before its mask;
    with `judge` a pruning step waits for what clients find on held-out data."""

    judge: bool = False
    remeasure: bool = False


@dataclass(frozen=True, slots=True)
class Remeasured(Event):
    """The statistics that the clients measured anew are a version, and durable."""


@dataclass(frozen=True, slots=True)
class Decided(Event):
    """The evaluation is entered, and what follows from it for the model is durable."""


@dataclass(frozen=True, slots=True)
class Broken(Event):
    """The coordinator itself cannot go on: disk full, aggregation impossible."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """An operator, or the end of the process, asks for the run to end after what is committed."""

    reason: str


EVENTS: tuple[type[Event], ...] = (
    Joined,
    Left,
    GraceOver,
    Settled,
    Accepted,
    Declined,
    DeadlinePassed,
    Committed,
    Remeasured,
    Decided,
    Broken,
    StopRequested,
)


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that the hands must do."""


@dataclass(frozen=True, slots=True)
class Freeze(Effect):
    """Give out the shards: `clients` in order of their shard index; `count` of them in all."""

    clients: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Greet(Effect):
    """Tell a client that has just come (back) about the run and what is still its to do."""

    client: int
    admitted: bool
    working: bool


@dataclass(frozen=True, slots=True)
class OpenScoring(Effect):
    """Open the round, and have `cohort` score the version in force before anybody trains."""

    round: int
    cohort: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpenRound(Effect):
    """Give `cohort` their training assignments; with `scored` the round is open already, and its scoring ends."""

    round: int
    cohort: tuple[int, ...]
    scored: bool = False


@dataclass(frozen=True, slots=True)
class ExtendRound(Effect):
    """Remember that the open round got more time, `deadline_s` in all."""

    round: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Dismiss(Effect):
    """Tell a client that came (back) after the end that it is over."""

    client: int


@dataclass(frozen=True, slots=True)
class CloseRound(Effect):
    """Freeze the accepted set, aggregate, prune, commit; then report `Committed`."""

    round: int
    missing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DropRound(Effect):
    """The round counted nothing: it ends without a new version."""

    round: int


@dataclass(frozen=True, slots=True)
class OpenReestimation(Effect):
    """Have `cohort` measure the running statistics of the new version anew, before anybody evaluates it."""

    round: int
    cohort: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseReestimation(Effect):
    """Fold what the clients measured, and commit it; then report `Remeasured`."""

    round: int


@dataclass(frozen=True, slots=True)
class OpenEvaluation(Effect):
    """Give `cohort` the new version to evaluate."""

    round: int
    cohort: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseEvaluation(Effect):
    """Average what the clients found, let the pruning controller judge by it; then report `Decided`."""

    round: int


@dataclass(frozen=True, slots=True)
class SetTimer(Effect):
    """Report `event` after `seconds`, unless a timer of the same name is set or cleared first."""

    name: str
    seconds: float
    event: Event


@dataclass(frozen=True, slots=True)
class ClearTimer(Effect):
    """Forget the timer of this name, if it is set."""

    name: str


@dataclass(frozen=True, slots=True)
class Say(Effect):
    """Tell whoever looks what is being waited for."""

    text: str


@dataclass(frozen=True, slots=True)
class Warn(Effect):
    """Something that the report must not hide."""

    text: str


@dataclass(frozen=True, slots=True)
class EndRun(Effect):
    """The run is over: `finished`, `stopped` or `failed`."""

    outcome: Outcome
    reason: str
