"""What the pruning controller knows, hears and asks for, as plain values.

A *trial* is one pruning step on approval: a proposal, some recovery rounds, a verdict on held-out data. `controller.py`
turns events into effects; the coordinator's hands carry them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from fedprune.errors import LocalError
from fedprune.pruning.comparison import Interval, Measured
from fedprune.tensor import Version

Decision = Literal["accepted", "rejected", "extended", "abandoned"]


class Phase(Enum):
    """Where the controller stands."""

    WAITING = "waiting"
    BASELINE = "baseline"
    READY = "ready"
    PROPOSING = "proposing"
    RECOVERING = "recovering"
    JUDGING = "judging"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlan:
    """How to go about it. `path`: the densities to reach, one after the other, falling. No proposal before round
    `first` or after round `last`. A step may cost `max_drop` (a share of 1: 0.01 is one point) against the best
    accepted model; `confidence` is that of the paired interval."""

    path: tuple[float, ...]
    first: int
    last: int
    recovery_rounds: int = 3
    extensions: int = 1
    max_drop: float = 0.01
    confidence: float = 0.9
    max_rejections: int = 3
    smallest_step: float = 0.01

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip((1.0, *self.path), self.path, strict=False))
        if not self.path or not falling or self.path[-1] <= 0.0:
            raise _wrong("path", self.path, "falling densities between 1 and 0")
        if not 1 <= self.first <= self.last:
            raise _wrong("first and last", (self.first, self.last), "rounds, the first not after the last")
        if self.recovery_rounds < 1 or self.extensions < 0 or self.max_rejections < 1:
            raise _wrong("recovery", self, "at least 1 round of recovery and 1 rejection, 0 extensions or more")
        if not 0.0 <= self.max_drop < 1.0 or not 0.5 <= self.confidence < 1.0 or not 0.0 < self.smallest_step < 1.0:
            raise _wrong("max_drop", (self.max_drop, self.confidence), "shares: 0 to 1, confidence from 0.5")


def _wrong(key: str, seen: object, expected: str) -> LocalError:
    return LocalError(f"the controller's {key} cannot be", seen=seen, expected=expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A step on approval: to `density`, proposed with the version of `round`; `snapshot` is the version before that one,
    to go back to; `left` rounds of recovery are still to come."""

    density: float
    round: int
    snapshot: Version
    left: int = 0
    extensions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlState:
    """All that the controller's course depends on. `density` is the last accepted one, `best` the held-out results of
    the best accepted model by unit, `scale` the part of the next step that is dared; `rollbacks` so far, which is the
    epoch of the residuals."""

    plan: ControlPlan
    phase: Phase = Phase.WAITING
    density: float = 1.0
    best: Mapping[str, Measured] = field(default_factory=dict)
    trial: Trial | None = None
    scale: float = 1.0
    rejections: int = 0
    accepted: int = 0
    rollbacks: int = 0
    reason: str = ""

    @property
    def outcome(self) -> str:
        """What came of it, in words."""
        found = f"density {self.density:.4g} accepted" if self.accepted else "nothing could be pruned"
        return f"{found}: {self.reason}" if self.reason else found


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""


@dataclass(frozen=True, slots=True)
class RoundClosed(Event):
    """A round of training ended; its version will follow the version `before`, to which a rejected step goes back."""

    round: int
    before: Version


@dataclass(frozen=True, slots=True)
class Evaluated(Event):
    """The evaluation asked for: results by unit (a client, a batch), the same units each time, all on data that no
    step trained on. Results on test data are refused: a gate that looks at them spoils the final figure."""

    units: Mapping[str, Measured]
    source: Literal["held_out", "test"] = "held_out"


@dataclass(frozen=True, slots=True)
class Proposed(Event):
    """The proposal is committed, at this realised density."""

    density: float


@dataclass(frozen=True, slots=True)
class Exhausted(Event):
    """The pruner had nothing to propose: the floors hold what is left."""


@dataclass(frozen=True, slots=True)
class RunEnding(Event):
    """No further round comes."""


EVENTS: tuple[type[Event], ...] = (RoundClosed, Evaluated, Proposed, Exhausted, RunEnding)


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that the hands must do."""


@dataclass(frozen=True, slots=True)
class Evaluate(Effect):
    """Have the clients score the version of this round on what they held out; answer with `Evaluated`."""

    round: int


@dataclass(frozen=True, slots=True)
class Propose(Effect):
    """Keep `snapshot` whole (model, mask, server state), bring the mask of the round's version to `density`; answer with
    `Proposed` or `Exhausted`."""

    density: float
    snapshot: Version


@dataclass(frozen=True, slots=True)
class Restore(Effect):
    """Commit the content of `snapshot`, byte for byte, under new versions of model and mask; end the chain of
    broadcasts; clear the residuals of clients and server."""

    snapshot: Version


@dataclass(frozen=True, slots=True)
class Release(Effect):
    """The snapshot is not needed any more."""

    snapshot: Version


@dataclass(frozen=True, slots=True)
class Record(Effect):
    """For the explanation of the run: what was tried, what accuracy did, what was decided."""

    round: int
    density_before: float
    density_tried: float
    drop: Interval | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class Frozen(Effect):
    """The mask stays as it is from here on, for this reason."""

    reason: str
