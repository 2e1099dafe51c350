"""Clients that hold a part of the model each, against all of them holding the smallest: `python bench/levels.py --seeds 1-3`.

MNIST-1D on an MLP of 44,682 parameters, ten clients of lopsided data, 100 rounds. `levels`: two clients each at 0.05,
0.1, 0.2, 0.5 and 1 of the prunable weights. `smallest`: all ten at 0.05 by the same ranking, from before the first round
on; `smallest-snip`: by the clients' SNIP scores of the first model. `pruned`: a dense model that is pruned to 0.05
gradually, which clients at 0.05 could not carry. Seeds change the first weights and the batches; the strong ones hold the
same data in all of them. Accuracy is the mean of the last five rounds on test data.

Bytes are those of each client's ledger over the last 20 rounds, messages and all, which no new mask disturbs: by how much
they differ from the bytes of the clients at 1, times the share of the model that a client holds. They are counted three
times: with values that are written as they are (`raw`), where every weight takes 32 bits; coded without loss, where a
weight takes as many as its move has; and with updates as int8. Beside them: the bits of a weight, up, and by how much a
client moves it in the last round, as a share of its size, in the median. Each finished run is a line of
bench/out/levels.jsonl; what is there is not run again.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fedprune.config import RunConfig
from fedprune.report import RunReport
from fedprune.task import load_task
from fedprune_lab import paired
from fedprune_lab.benching import OUT
from fedprune_lab.figures import percent, points
from fedprune_lab.one_process import OneProcess
from fedprune_server.history import Sent, sent
from fedprune_server.store import SqliteStore

TASK = Path(__file__).parent / "tasks" / "signals.py"
CLIENTS, ROUNDS, STEADY = 10, 100, 20
# How values travel up and down; clients that hold a part each must get the same values.
VALUES = {"raw": ("raw", "raw"), "lossless": ("lossless", "lossless"), "int8": ("int8", "lossless")}
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0)
PRUNABLE, FREE = 40 * 256 + 256 * 128, 44_682 - 40 * 256 - 256 * 128
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
BY_HAND = {f"client-{number}": LEVELS[(number - 1) // 2] for number in range(1, CLIENTS + 1)}
KEYS = {
    "levels": (
        f"pruning.levels={list(LEVELS)}",
        "clients.densities={" + ", ".join(f'"{name}" = {density}' for name, density in BY_HAND.items()) + "}",
    ),
    "smallest": ("pruning.density=0.05", 'pruning.schedule="init"', 'pruning.spread="lamp"'),
    "smallest-snip": ("pruning.density=0.05", 'pruning.schedule="init"', 'pruning.method="snip"'),
    "pruned": ("pruning.density=0.05",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="1-3", help="such as 1-3 or 2,5")
    parser.add_argument("--only", nargs="*", default=[], choices=list(KEYS), help="these alone")
    parser.add_argument(
        "--values", nargs="+", choices=VALUES, default=VALUES, help="how values travel; raw and int8: levels alone"
    )
    parser.add_argument("--out", type=Path, default=OUT / "levels.jsonl", help="where runs are kept")
    asked = parser.parse_args()
    done = {(row["seed"], row["method"], row["values"]) for row in paired.rows(asked.out)}
    for seed in paired.seeds(asked.seeds):
        for values, method in product(asked.values, asked.only or KEYS):
            # Accuracy is compared without loss; otherwise it is the bytes that a run is for.
            if (seed, method, values) not in done and (method == "levels" or values == "lossless"):
                paired.keep(asked.out, _run(method, seed, values))
    _print(paired.rows(asked.out), asked.values)


def _run(method: str, seed: int, values: str) -> paired.Row:
    up, down = VALUES[values]
    keys = (*KEYS[method], f'compression.up="{up}"', f'compression.down="{down}"', "run.keep_updates=true")
    config = RunConfig.loads(BASE, overrides=(f'run.name="{method}"', f"run.seed={seed}", *keys))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        (run,) = OneProcess(configs=[config], task=load_task(TASK), clients=CLIENTS, out=out).run()
        clients = _by_client(out / method)
    print(f"{method}.{seed}: {percent(run.final.accuracy_last_rounds, digits=2)}", flush=True)
    return {"method": method, "seed": seed, "values": values, **_figures(run), "clients": clients}


def _figures(run: RunReport) -> dict[str, Any]:
    moved = run.totals.socket or run.totals.payload
    payload = run.totals.payload
    return {
        "accuracy": run.final.accuracy_last_rounds,
        "up": moved.up,
        "down": moved.down,
        "payload": [payload.up, payload.down],
    }


def _by_client(folder: Path) -> dict[str, dict[str, float]]:
    """By name: bytes of a client's steady rounds up and down, those of its values among the first, and by how much it moves
    a weight."""
    store = SqliteStore(folder / "state", durable=False)
    names = {record.client: record.identity for record in store.clients()}
    store.close()
    moved: dict[str, Counter[str]] = {name: Counter() for name in names.values()}
    moves = {update.identity: _move(update) for update in sent(folder, ROUNDS)}
    with (folder / "ledger.csv").open() as file:
        for row in csv.DictReader(file):
            if int(row["round"]) > ROUNDS - STEADY and row["kind"] != "heartbeat":
                counts, direction = moved[names[int(row["client"])]], row["direction"]
                counts[direction] += int(row["bytes"])
                counts["values"] += int(row["bytes"]) if (direction, row["kind"]) == ("up", "values") else 0
    return {name: {**counts, "move": moves[name]} for name, counts in moved.items()}


def _move(update: Sent) -> float:
    """|new - old| / |old| of the weights that the client holds, in the median."""
    shares = []
    for spec, packed in update.reader:
        alive = update.mask.alive.get(spec.name, np.ones(spec.shape, np.bool_))
        old = update.base[spec.name][alive]
        moved = packed.values if update.is_difference else packed.values - old
        shares.append(np.abs(moved)[old != 0] / np.abs(old)[old != 0])
    return float(np.median(np.concatenate(shares)))


def _print(rows: list[paired.Row], values: Sequence[str]) -> None:
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    _print_accuracies([row for row in rows if row["values"] == "lossless"], console)
    for name in values:
        runs = [row["clients"] for row in rows if (row["method"], row["values"]) == ("levels", name)]
        console.print(_bytes_table(runs, name))


def _print_accuracies(rows: list[paired.Row], console: Console) -> None:
    accuracies = {name: {row["seed"]: row["accuracy"] for row in rows if row["method"] == name} for name in KEYS}
    table = Table(title="accuracy, means over seeds", title_justify="left", highlight=False)
    for heading in ("method", "seeds", "accuracy", "levels are better by", "95 %"):
        table.add_column(heading, justify="right")
    for name, found in accuracies.items():
        better = paired.lost(found, accuracies["levels"]) if name != "levels" else None
        table.add_row(
            name,
            str(len(found)),
            percent(mean(found.values()), digits=2) if found else "",
            points(better.mean) if better else "",
            f"± {100 * better.half_width:.2f}" if better and better.half_width is not None else "",
        )
    console.print(table)


def _bytes_table(runs: list[dict[str, dict[str, float]]], values: str) -> Table:
    title = f"bytes of a steady round, {values}, by client; means of {len(runs)} runs"
    table = Table(title=title, title_justify="left", highlight=False)
    for heading in ("density", "of the model", "up", "down", "off up", "off down", "bits a weight, up", "moves it by"):
        table.add_column(heading, justify="right")
    whole = [name for name, density in BY_HAND.items() if density == 1.0]
    for name, density in BY_HAND.items() if runs else ():
        held = FREE + density * PRUNABLE
        part = held / (FREE + PRUNABLE)
        seen = {d: _mean(runs, [name], d) / STEADY for d in ("up", "down")}
        off = {d: STEADY * seen[d] / (part * _mean(runs, whole, d)) - 1 for d in seen}
        table.add_row(
            f"{density:g}",
            percent(part),
            *(f"{seen[d]:,.0f}" for d in seen),
            *(f"{off[d]:+.2%}" for d in off),
            f"{8 * _mean(runs, [name], 'values') / STEADY / held:.2f}",
            percent(_mean(runs, [name], "move"), digits=2),
        )
    return table


def _mean(runs: list[dict[str, dict[str, float]]], names: Sequence[str], what: str) -> float:
    """In the mean over these clients and all runs."""
    return mean(run[name][what] for run in runs for name in names)


if __name__ == "__main__":
    main()
