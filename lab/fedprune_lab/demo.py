"""`fedprune demo`: the digits twice, dense and then pruned to a tenth, and what that did to the bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from fedprune.config import ClientsSection, RunConfig, RunSection, TrainingSection
from fedprune.pruning_section import PruningSection
from fedprune.report import document
from fedprune_lab.comparison import compare
from fedprune_lab.federation import Federation
from fedprune_lab.reading import REPORT, read
from fedprune_lab.report import notes, print_sums
from fedprune_lab.view import open_view

TASK = Path(__file__).with_name("digits.py")
CLIENTS = 4
ROUNDS = 40
DENSITY = 0.1
SEED = 1
EPOCHS = 2
LEARNING_RATE = 0.1
EVERY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the demo does; the defaults are what `make demo` shows."""

    out: Path
    rounds: int = ROUNDS
    clients: int = CLIENTS
    density: float = DENSITY
    seed: int = SEED
    task: Path = TASK
    relay: bool = False
    page: str | None = None

    def configs(self) -> tuple[RunConfig, RunConfig]:
        """The dense run and the pruned run: alike in everything else."""
        return self.config("dense", 1.0), self.config("pruned", self.density)

    def config(self, name: str, density: float) -> RunConfig:
        """The run that ends at this density."""
        return RunConfig(
            run=RunSection(name=name, rounds=self.rounds, seed=self.seed),
            clients=ClientsSection(expect=self.clients, min_clients=self.clients),
            training=TrainingSection(epochs=EPOCHS, learning_rate=LEARNING_RATE, held_out=0.0),
            pruning=PruningSection(density=density, every=EVERY),
        )


def run_demo(plan: Plan, console: Console) -> dict[str, Any]:
    """Run the whole demo and give what its report.json holds. Raises `LocalError` when a process of it fails;
    `KeyboardInterrupt` passes, after everything has been ended."""
    federation = Federation(
        configs=plan.configs(),
        task=plan.task,
        clients=plan.clients,
        out=plan.out,
        relay=plan.relay,
        page=plan.page,
    )
    if plan.page:
        console.print(f"live page: http://{plan.page}/", highlight=False, markup=False, soft_wrap=True)
    runs, crossed = federation.run(open_view(console))
    more: dict[str, Any] = {"comparison": compare(*runs).to_dict()}
    if crossed is not None:
        more["relay"] = {"up": crossed.up, "down": crossed.down}
    whole = document(runs, **more)
    (plan.out / REPORT).write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def print_outcome(plan: Plan, console: Console) -> None:
    """Dense beside pruned, and where everything lies."""
    _, runs = read(plan.out / REPORT)
    print_sums(runs, console)
    # Both runs tend to have the same notes.
    for note in dict.fromkeys(note for run in runs for note in notes(run)):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"all of it, round by round: fedprune report {plan.out}", highlight=False, soft_wrap=True)
