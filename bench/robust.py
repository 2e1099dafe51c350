"""Aggregation rules under attack, paired by seed: `python bench/robust.py --seeds 1-5`.

MNIST-1D on an MLP of 44,682 parameters, ten clients, two of them attackers who know everything, 60 rounds of two local
epochs. Once with the data dealt evenly, where the rules make their promises, and once lopsided (Dirichlet 0.5), where
what they take for lies may be a client's honest difference. What is lost is counted against averaging (`fedavg`) with
nobody lying; the attacks are described in lab/fedprune_lab/attacks.py. Done in pieces like bench/accuracy.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table
from torch.utils.data import Subset, TensorDataset

from fedprune import Shard
from fedprune.config import RunConfig
from fedprune.report import RunReport
from fedprune.task import Task, load_task
from fedprune_lab import paired
from fedprune_lab.attacks import ATTACKS, BentLink, Gang
from fedprune_lab.benching import OUT
from fedprune_lab.figures import percent, points
from fedprune_lab.one_process import OneProcess
from fedprune_lab.paired import Row
from fedprune_lab.partition import iid

SIGNALS = Path(__file__).parent / "tasks" / "signals.py"
CLIENTS, ATTACKERS, ROUNDS = 10, 2, 60
CLEAN = "nobody lies"
RULES = ("fedavg", "trimmed_mean", "median", "multi_krum", "norm_clip")
# What a rule promises to stand: clipping bounds how long a lie is, not where it points to.
PROMISED = {
    **dict.fromkeys(("trimmed_mean", "median", "multi_krum"), (CLEAN, *ATTACKS)),
    "norm_clip": (CLEAN, "scaling"),
}
ALLOWED_POINTS = 5.0
BASE = f"""
[run]
rounds = {ROUNDS}
[clients]
expect = {CLIENTS}
min_clients = {CLIENTS}
[training]
epochs = 2
batch_size = 64
learning_rate = 0.05
momentum = 0.9
held_out = 0.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run."""

    data: str
    rule: str
    attack: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}.{self.rule}.{self.attack.replace(' ', '_')}.{self.seed}"


def main() -> None:
    asked = _arguments()
    kept = paired.rows(asked.out)
    for data, task in (("even", _evenly()), ("lopsided", load_task(SIGNALS))):
        wanted = [
            Trial(data=data, rule=rule, attack=attack, seed=seed)
            for seed in paired.seeds(asked.seeds)
            for rule in RULES
            for attack in (CLEAN, *ATTACKS)
            if not asked.promised or attack in _promised(data, rule)
        ]
        done = {row["name"] for row in kept}
        todo = [trial for trial in wanted if trial.name not in done and data in asked.data][: asked.most]
        if todo and not asked.table:
            _run(task, todo, asked.out)
            asked.most -= len(todo)
    _print(paired.rows(asked.out))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="1-5", help="such as 1-5 or 3,5")
    parser.add_argument("--data", nargs="*", default=["even", "lopsided"], choices=["even", "lopsided"])
    parser.add_argument("--promised", action="store_true", help="only what is promised, and what it is held against")
    parser.add_argument("--most", type=int, default=10**6, metavar="N", help="so many runs at most, this time")
    parser.add_argument("--table", action="store_true", help="run nothing, show what there is")
    parser.add_argument("--out", type=Path, default=OUT / "robust.jsonl", help="where runs are kept")
    return parser.parse_args()


def _promised(data: str, rule: str) -> tuple[str, ...]:
    """What a rule is to stand, and what it costs where nobody lies; on lopsided data no rule promises anything."""
    return PROMISED.get(rule, (CLEAN,)) if data == "even" else (CLEAN,)


def _evenly() -> Task:
    """The signals, dealt so that all clients have the same kind of data."""
    task = load_task(SIGNALS)
    every = cache(partial(_all_of, task))

    def train_data(shard: Shard) -> Subset[tuple[object, ...]]:
        data = every()
        return Subset(data, iid(len(data), shard.count, seed=1)[shard.index].tolist())

    return replace(task, train_data=train_data)


def _all_of(task: Task) -> TensorDataset:
    data = task.train_data(Shard(index=0, count=1, path=task.path.parent, seed=0))
    assert isinstance(data, TensorDataset)
    return data


def _run(task: Task, todo: Sequence[Trial], out: Path) -> None:
    trials = {trial.name: trial for trial in todo}
    configs = [
        RunConfig.loads(BASE, overrides=(f'run.name="{name}"', f"run.seed={t.seed}", f'aggregation.rule="{t.rule}"'))
        for name, t in trials.items()
    ]
    gang = Gang(
        clients=CLIENTS, attackers=ATTACKERS, attack={name: ATTACKS.get(t.attack) for name, t in trials.items()}
    )

    def finished(run: RunReport) -> None:
        t = trials[run.name]
        accuracy = run.final.accuracy_last_rounds
        row = {"name": run.name, "data": t.data, "rule": t.rule, "attack": t.attack, "seed": t.seed}
        paired.keep(out, {**row, "accuracy": accuracy, "by_round": [r.accuracy for r in run.rounds]})
        print(f"{run.name:<40} {percent(accuracy, digits=2)}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        link: Callable[..., BentLink] = partial(BentLink, gang)
        OneProcess(
            configs=configs, task=task, clients=CLIENTS, out=Path(folder) / "runs", finished=finished, link=link
        ).run()


def _print(rows: Sequence[Row]) -> None:
    console = Console()
    wide = console if console.is_terminal else Console(width=140)
    for data in ("even", "lopsided"):
        found = [row for row in rows if row["data"] == data]
        if found:
            wide.print(_table(data, found))


def _table(data: str, rows: Sequence[Row]) -> Table:
    """Accuracy, and points lost to plain averaging with nobody lying; `*`: promised, `!`: promised and not kept."""
    table = Table(title=f"{data} data, {ATTACKERS} of {CLIENTS} lie", title_justify="left", highlight=False)
    table.add_column("rule", no_wrap=True)
    for attack in (CLEAN, *ATTACKS):
        table.add_column(attack, justify="right", no_wrap=True)
    clean = _by_seed(rows, "fedavg", CLEAN)
    for rule in RULES:
        table.add_row(
            rule, *(_cell(data, _by_seed(rows, rule, attack), clean, rule, attack) for attack in (CLEAN, *ATTACKS))
        )
    table.caption = f"{len(clean)} seeds; points lost to averaging with nobody lying, half of the 95 % interval"
    return table


def _by_seed(rows: Sequence[Row], rule: str, attack: str) -> dict[int, float]:
    return {row["seed"]: row["accuracy"] for row in rows if (row["rule"], row["attack"]) == (rule, attack)}


def _cell(data: str, values: dict[int, float], clean: dict[int, float], rule: str, attack: str) -> str:
    lost = paired.lost(values, clean)
    if lost is None:
        return ""
    half = "" if lost.half_width is None else f" ± {100 * lost.half_width:.1f}"
    promised = data == "even" and attack in PROMISED.get(rule, ())
    mark = "" if not promised else "*" if 100 * lost.mean <= ALLOWED_POINTS else "!"
    return f"{percent(mean(values.values()))} ({points(lost.mean)}{half}){mark}"


if __name__ == "__main__":
    main()
