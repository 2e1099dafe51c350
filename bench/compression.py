"""Accuracy against socket bytes under compression, paired by seed: `python bench/compression.py --seeds 10`.

MNIST-1D, MLP 40-256-128-10 with 44,682 parameters, 10 clients of lopsided data, 100 rounds of two local epochs. Each
seed trains the same first weights on the same batches dense, dense under ternary, gradually pruned under ternary, and
gradually pruned under int8. Accuracy is the mean of the last five rounds on 1,000 test signals; bytes are the
socket's, both ways, from joining to going home, against `raw` (four bytes for each parameter) and against the dense run.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t as students_t

from fedprune.config import RunConfig
from fedprune.report import RunReport
from fedprune_lab.benching import keep
from fedprune_lab.federation import Federation
from fedprune_lab.figures import percent, points, size, times
from fedprune_lab.view import LineView

TASK = Path(__file__).parent / "tasks" / "signals.py"
BASE = """
[training]
epochs = 2
batch_size = 64
learning_rate = 0.05
momentum = 0.9
held_out = 0.0
"""
TERNARY = ('compression.up="ternary"', 'compression.down="ternary"', "compression.top=0.04")
INT8 = ('compression.up="int8"', 'compression.down="int8"')
# What is asked of each: points below dense, and times fewer bytes than raw.
METHODS: dict[str, tuple[str, ...]] = {
    "dense": (),
    "ternary": TERNARY,
    "hybrid": ("pruning.density=0.2", *TERNARY),
    "pruned": ("pruning.density=0.2",),
    "pruned-int8": ("pruning.density=0.2", *INT8),
}
GATES: dict[str, tuple[str, float, float]] = {
    "ternary": ("dense", 3.0, 80.0),
    "hybrid": ("dense", 4.0, 80.0),
    "pruned-int8": ("pruned", 2.0, 3.5),
}


def main() -> None:
    asked = _arguments()
    seeds = range(1, asked.seeds + 1)
    names = [n for n in METHODS if not asked.only or n in asked.only]
    runs = {seed: _one_seed(seed, names, asked) for seed in seeds}
    found = {name: [_figures(runs[seed][name]) for seed in seeds] for name in names}
    gaps = {
        name: _gap(found, name, against) for name, (against, _, _) in GATES.items() if {name, against} <= set(names)
    }
    _print(found, gaps)
    print(f"kept in {keep('compression', {'methods': found, 'gaps': gaps, 'rounds': asked.rounds, 'set': asked.set})}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many seeds, from 1 on")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=[], choices=list(METHODS), help="these methods alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key for the compressed runs")
    return parser.parse_args()


def _one_seed(seed: int, names: Sequence[str], asked: argparse.Namespace) -> dict[str, RunReport]:
    configs = [_config(name, seed, asked) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(configs=configs, task=TASK, clients=asked.clients, out=Path(folder) / "runs")
        reports, _ = federation.run(LineView(Console(stderr=True)))
    return dict(zip(names, reports, strict=True))


def _config(name: str, seed: int, asked: argparse.Namespace) -> RunConfig:
    keys = METHODS[name]
    more = asked.set if any(key.startswith("compression.") for key in keys) else ()
    facts = (f'run.name="{name}"', f"run.seed={seed}", f"run.rounds={asked.rounds}")
    crowd = (f"clients.expect={asked.clients}", f"clients.min_clients={asked.clients}")
    return RunConfig.loads(BASE, overrides=(*facts, *crowd, *keys, *more))


def _figures(run: RunReport) -> dict[str, Any]:
    totals = run.totals
    moved = totals.socket or totals.payload
    return {
        "accuracy": run.final.accuracy_last_rounds,
        "density": run.final.density,
        "socket": totals.socket is not None,
        "up": moved.up,
        "down": moved.down,
        "raw": totals.dense_equivalent.both / moved.both,
        "by_round": [row.accuracy for row in run.rounds],
    }


def _gap(found: dict[str, list[dict[str, Any]]], name: str, against: str) -> dict[str, Any]:
    """What a method loses against another, paired by seed: the mean and its 95 % interval (Student's t)."""
    differences = [b["accuracy"] - a["accuracy"] for a, b in zip(found[name], found[against], strict=True)]
    half = None
    if len(differences) > 1:
        half = float(students_t.ppf(0.975, len(differences) - 1)) * stdev(differences) / math.sqrt(len(differences))
    return {"against": against, "mean": mean(differences), "half_width": half}


def _print(found: dict[str, list[dict[str, Any]]], gaps: dict[str, dict[str, Any]]) -> None:
    table = Table(title="MNIST-1D under compression, means over seeds", title_justify="left", highlight=False)
    for heading in (
        "method",
        "accuracy",
        "loss, points",
        "95 %",
        "at most",
        "up",
        "down",
        "raw/moved",
        "at least",
        "dense/moved",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, rows in found.items():
        gap, asked = gaps.get(name), GATES.get(name)
        half = gap["half_width"] if gap else None
        dense = _moved(found["dense"]) / _moved(rows) if "dense" in found else None
        table.add_row(
            name,
            percent(mean(row["accuracy"] for row in rows), digits=2),
            points(gap["mean"]) if gap else "",
            f"± {100 * half:.2f}" if half is not None else "",
            f"{asked[1]:.0f} to {asked[0]}" if asked else "",
            size(round(mean(row["up"] for row in rows))),
            size(round(mean(row["down"] for row in rows))),
            times(mean(row["raw"] for row in rows)),
            times(asked[2]) if asked else "",
            times(dense),
        )
    # A file or a pipe has no width of its own.
    console = Console()
    (console if console.is_terminal else Console(width=132)).print(table)


def _moved(rows: Sequence[dict[str, Any]]) -> float:
    return float(mean(row["up"] + row["down"] for row in rows))


if __name__ == "__main__":
    main()
