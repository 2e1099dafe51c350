"""All that a run's course depends on: its rules, its state, and the draw of a cohort. Plain values, no behaviour."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from math import ceil
from typing import Literal


class Phase(Enum):
    """Where a run stands."""

    GATHERING = "gathering"
    SCORING = "scoring"
    TRAINING = "training"
    FOLDING = "folding"
    REESTIMATING = "re-estimating"
    MEASURING = "measuring"
    EVALUATING = "evaluating"
    DECIDING = "deciding"
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
    # Rounds before whose training the clients score the version in force; 0: before the first round.
    scored: frozenset[int] = frozenset()

    def due(self, round_: int) -> bool:
        """Whether the version that this round produced is to be evaluated."""
        return round_ == self.rounds or (self.evaluate_every > 0 and round_ % self.evaluate_every == 0)

    def evaluates(self, round_: int) -> bool:
        """Whether it is due and the clients have to do it."""
        return self.clients_evaluate and self.due(round_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """All that a run's course depends on. Clients are the coordinator's indices of them."""

    rules: Rules
    phase: Phase = Phase.GATHERING
    round: int = 0
    connected: frozenset[int] = frozenset()
    # This process took the run up, and its clients still have time to come back before anything is opened without them.
    returning: bool = False
    shards: tuple[int, ...] = ()
    cohort: tuple[int, ...] = ()
    target: int = 0
    accepted: frozenset[int] = frozenset()
    declined: frozenset[int] = frozenset()
    extended: bool = False
    # The mask has changed, and running statistics are still those of the network before it.
    unmeasured: bool = False
    unevaluated: bool = False
    # A pruning step waits for the evaluation: every client with a shard takes part.
    judged: bool = False
    primed: bool = False
    empty_rounds: int = 0
    counted: int = 0
    stopping: str | None = None
    reasons: tuple[str, ...] = field(default=())

    @property
    def waits(self) -> bool:
        """Whether the run waits for results of its cohort."""
        return self.phase in (Phase.SCORING, Phase.TRAINING, Phase.REESTIMATING, Phase.EVALUATING)

    @property
    def pending(self) -> tuple[int, ...]:
        """The clients of the cohort that the round still waits for."""
        return tuple(c for c in self.cohort if c not in self.accepted and c not in self.declined)

    @property
    def complete(self) -> bool:
        """Whether every client with a shard is connected."""
        return self.connected.issuperset(self.shards)

    @property
    def candidates(self) -> tuple[int, ...]:
        """The clients that could work now: connected, with a shard."""
        return tuple(c for c in self.shards if c in self.connected)


def choose_cohort(rules: Rules, round_: int, candidates: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The cohort of a round, ascending, and how many updates complete it.

    A draw without replacement that depends on seed, round and candidates only, so that a restarted coordinator
    draws the same cohort. With over-selection more clients work than are waited for.
    """
    target = min(len(candidates), max(rules.min_clients, share_of(len(candidates), rules.share)))
    size = min(len(candidates), share_of(target, 1 + rules.over_select))

    def lot(client: int) -> bytes:
        return hashlib.sha256(f"{rules.seed}/{round_}/{client}".encode()).digest()

    return tuple(sorted(sorted(candidates, key=lot)[:size])), target


def share_of(count: int, share: float) -> int:
    """`share` of `count`, rounded up, but 7 % of 100 is 7 although the product is a hair above it."""
    return ceil(round(count * share, 9))
