"""Runs with a live page, for the benches of watching: short rounds, and the demo's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune_lab.demo import Plan
from fedprune_lab.federation import Federation
from fedprune_lab.ports import Ports

TASK = Path("bench/tasks/mlp50k.py")
CLIENTS = 8
# The first rounds import and warm up.
WARMING = 8


def short(rounds: int) -> tuple[RunConfig, Path, int, bool]:
    """Rounds as short as they get: eight clients that do not train, dense, without evaluation."""
    config = RunConfig(
        run=RunSection(name="bench", rounds=rounds, evaluate_every=0),
        clients=ClientsSection(expect=CLIENTS, min_clients=CLIENTS),
        training=TrainingSection(steps=1, held_out=0.0),
    )
    return config, TASK, CLIENTS, True


def demo(rounds: int) -> tuple[RunConfig, Path, int, bool]:
    """The demo's pruned run, with its four clients that train."""
    plan = Plan(out=Path(), rounds=rounds)
    return plan.config("bench", plan.density), plan.task, plan.clients, False


ROUNDS = {"short": short, "demo": demo}


@contextmanager
def made(kind: str, rounds: int, look: Callable[[int], None] | None = None) -> Iterator[tuple[Federation, str]]:
    """A federation and the address of its page; `look` as in `Federation`."""
    config, task, clients, light = ROUNDS[kind](rounds)
    with tempfile.TemporaryDirectory() as folder, Ports() as ports:
        address, out = f"127.0.0.1:{ports.take()}", Path(folder) / "run"
        yield (
            Federation(configs=[config], task=task, clients=clients, out=out, page=address, light=light, look=look),
            address,
        )
