"""The plans that are played: kills at random instants, and deaths at each named failpoint."""

from __future__ import annotations

import random
import signal
from dataclasses import replace

from fedprune.failpoints import ERRORS, Action
from fedprune_lab.faults.plan import Life, Model, Plan
from fedprune_lab.faults.scripted import Mood

# Above what the store keeps in its database: updates and models of this net are files.
LARGE = Model(inputs=400, hidden=500)
KILLED = frozenset({0, -int(signal.SIGKILL)})
# Points that no trial passes: its net has no running statistics. The tests of re-estimation end a coordinator there.
ELSEWHERE = frozenset({"statistics-folded"})
# Before a program can heed a signal, the signal ends it.
SUSPENDED = frozenset({0, 128 + int(signal.SIGTERM), -int(signal.SIGTERM)})


def random_kills(seed: int, *, kills: int, rounds: int = 10, asked: bool = False) -> Plan:
    """A run whose coordinator is killed at random instants of each of its lives, their beginnings included; or is asked
    to end, and has to leave before it is started again."""
    rng = random.Random(seed)
    overrides = [f"run.seed={seed}"]
    if rng.random() < 0.5:
        overrides += ["clients.over_select=0.5", "clients.share=0.67"]
    work_s = rng.choice([0.0, 0.02, 0.1])
    within_s = rng.choice([0.5, 1.5, 3.0])
    return Plan(
        seed=seed,
        clients=rng.choice([2, 3, 4]),
        rounds=rounds,
        lives=tuple(
            Life(kill_after_s=rng.uniform(0.0, within_s), asked=asked, ends=SUSPENDED if asked else KILLED)
            for _ in range(kills)
        ),
        overrides=overrides,
        moods=lambda number, round_: Mood(work_s=work_s * (1 + number)),
    )


def at_point(name: str, action: Action, *, hit: int) -> Plan:
    """A run whose coordinator dies when it passes the named point for the `hit`th time."""
    ends = frozenset({0, 1}) if action in ERRORS else KILLED
    life = Life(failpoints=f"{name}={action.value}@{hit}", ends=ends)
    return replace(reaching(name), lives=(life,))


def reaching(name: str) -> Plan:
    """An undisturbed run that passes the named point."""
    if name.startswith("blob-"):
        return Plan(rounds=3, clients=2, model=LARGE)
    if name.startswith("extend-round"):
        slow = ("clients.deadline_s=0.4", "clients.quorum=1.0", 'clients.on_miss="extend"')
        return Plan(overrides=slow, moods=lambda number, round_: Mood(work_s=0.6 * (number == 0 and round_ in (1, 3))))
    if name.startswith("close-round"):
        return Plan(moods=lambda number, round_: Mood(declines=frozenset({2, 4, 5})))
    return Plan()
