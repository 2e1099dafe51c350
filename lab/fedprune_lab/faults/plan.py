"""What is tried: how many clients and rounds, and how the coordinator dies in between. Drawn from a seed.

A failure can be played again by its seed. (The kernel's scheduling is not in it: a kill at the same millisecond may
meet another instruction.)
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedprune.config import RunConfig
from fedprune.tensor import Role, Schema, TensorSpec
from fedprune_lab.faults.scripted import Mood

TASK = """
from torch import nn

def model():
    return nn.Sequential(nn.Linear({inputs}, {hidden}), nn.ReLU(), nn.Linear({hidden}, 10))

def train_data(shard):
    return []

def loss(model, batch):
    return 0.0
"""
RUN = "trial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The small net of a trial: inputs -> hidden -> 10."""

    inputs: int = 24
    hidden: int = 40

    @property
    def schema(self) -> Schema:
        """Its signature, as the task file gives it."""
        shapes = {"0.weight": (self.hidden, self.inputs), "0.bias": (self.hidden,)}
        shapes |= {"2.weight": (10, self.hidden), "2.bias": (10,)}
        roles = {"0.weight": Role.PRUNABLE}
        return Schema(
            tensors=tuple(
                TensorSpec(name=n, shape=s, dtype="float32", role=roles.get(n, Role.FREE)) for n, s in shapes.items()
            )
        )

    def first(self) -> dict[str, NDArray[np.generic]]:
        """The weights that every trial begins with."""
        rng = np.random.default_rng(7)
        return {t.name: rng.standard_normal(t.shape, dtype=np.float32) for t in self.schema}


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One incarnation of the coordinator: it dies after `kill_after_s`, or at the failpoints armed by `failpoints`.
    With `asked` it is asked to end (SIGTERM) and has half a minute. `ends` are the exit codes that such a death may
    have; 0 is a run that was over before."""

    kill_after_s: float | None = None
    asked: bool = False
    failpoints: str = ""
    ends: frozenset[int] = frozenset({0, -signal.SIGKILL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played. `lives` are the coordinator's incarnations before the one that may finish; `moods` say how a
    client (by number) behaves in a round."""

    seed: int = 0
    clients: int = 3
    rounds: int = 6
    lives: Sequence[Life] = ()
    model: Model = Model()
    overrides: Sequence[str] = ()
    moods: Callable[[int, int], Mood] = lambda number, round_: Mood()
    limit_s: float = 200.0

    def config(self, folder: Path) -> RunConfig:
        """The run file: every client in every round, masks that change every other round."""
        text = f"""
[run]
name = "{RUN}"
rounds = {self.rounds}
init = "{folder / "first.safetensors"}"
[task]
file = "{folder / "task.py"}"
[clients]
expect = {self.clients}
grace_s = 20.0
[pruning]
density = 0.3
every = 2
start = 0.0
end = 0.7
[network]
chunk_bytes = 1024
"""
        return RunConfig.loads(text, name="trial", overrides=self.overrides)


@dataclass(slots=True, kw_only=True)
class Found:
    """What a trial ended with. `problems` is empty when every promise was kept; `accepted` has the names of the clients
    whose updates count, by round; `in_a_write` says that a coordinator was stopped while it held the store's lock."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    deaths: int = 0
    in_a_write: bool = False
    starts: int = 0
    receipts: int = 0
    seconds: float = 0.0
    accepted: list[tuple[int, list[str]]] = field(default_factory=list)
