"""Accuracy against socket bytes, pruned and compressed, paired by seed: `python bench/accuracy.py --seeds 1-10`.

Ten clients of lopsided data (Dirichlet 0.5), 100 rounds of two local epochs, plain SGD with momentum; MNIST-1D on an
MLP of 44,682 parameters, and scikit-learn's digits on one of 50,826. Each seed trains the same first weights on the
same batches under every method. Accuracy is the mean of the last five rounds on test data that nobody trains on;
bytes are the socket's, both ways, from joining to going home.

All of it takes hours, so it can be done in pieces: each finished run is a line of bench/out/accuracy.jsonl, what is
there is not run again, and `--table` shows what there is. A line counts only for the keys it was run with.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from rich.console import Console
from rich.table import Table

from fedprune.config import RunConfig
from fedprune.report import RunReport
from fedprune.task import load_task
from fedprune_lab import paired
from fedprune_lab.benching import OUT
from fedprune_lab.figures import percent, points, size, times
from fedprune_lab.one_process import OneProcess
from fedprune_lab.paired import Row

TASKS = Path(__file__).parent / "tasks"
CLIENTS, ROUNDS, SEEDS_ASKED = 10, 100, 10
# Weights of the MNIST-1D model that can be pruned, each of which has a score.
SCORED = 40 * 256 + 256 * 128
BASE = f"""
[run]
rounds = {ROUNDS}
[clients]
expect = {CLIENTS}
min_clients = {CLIENTS}
[training]
epochs = 2
learning_rate = 0.05
momentum = 0.9
held_out = 0.0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A run file's keys, and what is asked of the run: at most `loses` points less than `against`, at least `raw` times
    fewer bytes than four for each parameter, at most `share` of the bytes that `of` moved. A mask that is `frozen` before
    the first round, by scores from data or without, has its share by `_frozen_share`."""

    keys: tuple[str, ...] = ()
    task: str = "signals"
    against: str = ""
    loses: float | None = None
    raw: float | None = None
    share: float | None = None
    of: str = ""
    frozen: Literal["", "scores", "no scores"] = ""

    @property
    def config(self) -> tuple[str, ...]:
        """The keys with the task's batch size (64 signals, 32 pictures)."""
        return (f"training.batch_size={64 if self.task == 'signals' else 32}", *self.keys)


INT8 = ('compression.up="int8"', 'compression.down="int8"')
TERNARY = ('compression.up="ternary"', 'compression.down="ternary"')
TOP4, TOP1 = (*TERNARY, "compression.top=0.04"), (*TERNARY, "compression.top=0.01")
REGROW = ("pruning.density=0.2", 'pruning.schedule="regrow"', 'pruning.spread="erk"', "pruning.every=10")
INIT = ("pruning.density=0.2", 'pruning.schedule="init"')
METHODS: dict[str, Method] = {
    "dense": Method(),
    "ternary": Method(keys=TOP4, against="dense", loses=3, raw=80),
    "hybrid": Method(keys=("pruning.density=0.2", *TOP4), against="dense", loses=4, raw=80),
    "pruned-0.1": Method(keys=("pruning.density=0.1",), against="dense", loses=3.5, share=0.37, of="dense"),
    "pruned-0.05": Method(keys=("pruning.density=0.05",), against="dense", loses=5.5),
    "pruned-0.1-int8": Method(keys=("pruning.density=0.1", *INT8), against="pruned-0.1", loses=2, raw=3.5),
    "dense-int8": Method(keys=INT8, against="dense", loses=2, raw=3.5),
    "top-0.01": Method(keys=TOP1, against="dense"),
    "top-0.01-no-feedback": Method(keys=(*TOP1, "compression.error_feedback=false"), against="top-0.01"),
    "regrow-gradient": Method(keys=(*REGROW, 'pruning.regrow="gradient"'), against="dense"),
    "regrow-votes": Method(keys=(*REGROW, 'pruning.regrow="votes"'), against="dense"),
    "regrow-local": Method(keys=(*REGROW, 'pruning.regrow="local"'), against="dense"),
    "regrow-posterior": Method(keys=(*REGROW, 'pruning.regrow="posterior"'), against="regrow-local", loses=0),
    "init-snip": Method(keys=(*INIT, 'pruning.method="snip"'), against="dense", of="dense", frozen="scores"),
    "init-synflow": Method(keys=(*INIT, 'pruning.method="synflow"'), against="dense", of="dense", frozen="no scores"),
    "init-random": Method(
        keys=(*INIT, 'pruning.method="random"', 'pruning.spread="erk"'), against="dense", of="dense", frozen="no scores"
    ),
    "digits-dense": Method(task="pictures"),
    "digits-0.02": Method(task="pictures", keys=("pruning.density=0.02",), against="digits-dense", loses=2),
    "digits-0.02-units": Method(
        task="pictures", keys=("pruning.density=0.02", "pruning.connect=false"), against="digits-dense", loses=2
    ),
}


def main() -> None:
    asked = _arguments()
    names = asked.only or list(METHODS)
    if not asked.table:
        _run_all([(seed, name) for seed in paired.seeds(asked.seeds) for name in names], asked)
    _print(paired.rows(asked.out), names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", default="1-10", help="such as 1-10 or 3,5")
    parser.add_argument("--only", nargs="*", default=[], choices=list(METHODS), help="these methods alone")
    parser.add_argument("--table", action="store_true", help="run nothing, show what there is")
    parser.add_argument("--out", type=Path, default=OUT / "accuracy.jsonl", help="where runs are kept")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key more, for trying out")
    return parser.parse_args()


def _run_all(wanted: Sequence[tuple[int, str]], asked: argparse.Namespace) -> None:
    done = {(row["seed"], row["method"], tuple(row["keys"])) for row in paired.rows(asked.out)}
    for task in ("signals", "pictures"):
        todo = {
            f"{name}.{seed}": (seed, name, [*METHODS[name].config, *asked.set])
            for seed, name in wanted
            if METHODS[name].task == task and (seed, name, (*METHODS[name].config, *asked.set)) not in done
        }
        if todo:
            _run(task, todo, asked.out)


def _run(task: str, todo: dict[str, tuple[int, str, list[str]]], out: Path) -> None:
    """One process after the other's runs; each is written down as it ends, so that nothing but the last is lost."""
    configs = [
        RunConfig.loads(BASE, overrides=(f'run.name="{run}"', f"run.seed={seed}", *keys))
        for run, (seed, _, keys) in todo.items()
    ]
    began_s = time.monotonic()

    def finished(run: RunReport) -> None:
        seed, method, keys = todo[run.name]
        paired.keep(out, {"method": method, "seed": seed, "keys": keys, **_figures(run)})
        accuracy = percent(run.final.accuracy_last_rounds, digits=2)
        print(f"{time.monotonic() - began_s:6.0f} s  {run.name:<28} {accuracy}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        OneProcess(
            configs=configs,
            task=load_task(TASKS / f"{task}.py"),
            clients=CLIENTS,
            out=Path(folder) / "runs",
            finished=finished,
        ).run()


def _figures(run: RunReport) -> Row:
    totals = run.totals
    moved = totals.socket or totals.payload
    return {
        "accuracy": run.final.accuracy_last_rounds,
        "density": run.final.density,
        "q": run.q,
        "socket": totals.socket is not None,
        "up": moved.up,
        "down": moved.down,
        "raw": totals.dense_equivalent.both / moved.both,
        "payload": totals.payload.both,
        "ledger": {kind: [t.up, t.down] for kind, t in totals.ledger.items()},
        "by_round": [row.accuracy for row in run.rounds],
        "warnings": list(run.warnings),
    }


def _print(rows: Iterable[Row], names: Sequence[str]) -> None:
    found = _by_method(rows)
    table = Table(title="accuracy and socket bytes, means over seeds", title_justify="left", highlight=False)
    headings = ["method", "seeds", "accuracy", "points lost", "95 %", "to", "allowed", "up", "down", "raw/moved"]
    for heading in (*headings, "asked", "of dense's", "allowed", "holds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in names:
        if found.get(name):
            table.add_row(*_cells(name, found))
    # A file or a pipe has no width of its own.
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)


def _by_method(rows: Iterable[Row]) -> dict[str, dict[int, Row]]:
    """The newest row of each method and seed that was run as the method stands now."""
    found: dict[str, dict[int, Row]] = {name: {} for name in METHODS}
    for row in rows:
        method = METHODS.get(row["method"])
        if method and tuple(row["keys"]) == method.config:
            found[row["method"]][row["seed"]] = row
    return found


def _cells(name: str, found: dict[str, dict[int, Row]]) -> list[str]:
    method, rows = METHODS[name], list(found[name].values())
    lost = paired.lost(_accuracies(found[name]), _accuracies(found.get(method.against, {})))
    raw = mean(row["raw"] for row in rows)
    dense = found.get(method.of or "dense", {})
    part = _part(found[name], dense)
    share = _frozen_share(method, found[name], dense) if method.frozen else method.share
    held = [
        *([100 * lost.mean <= method.loses] if method.loses is not None and lost is not None else []),
        *([raw >= method.raw] if method.raw else []),
        *([part <= share] if share and part is not None else []),
    ]
    return [
        name,
        str(len(rows)),
        percent(mean(row["accuracy"] for row in rows), digits=2),
        points(lost.mean) if lost else "",
        f"± {100 * lost.half_width:.2f}" if lost and lost.half_width is not None else "",
        method.against,
        f"{method.loses:g}" if method.loses is not None else "",
        size(round(mean(row["up"] for row in rows))),
        size(round(mean(row["down"] for row in rows))),
        times(raw),
        times(method.raw) if method.raw else "",
        f"{part:.2%}" if part is not None else "",
        f"{share:.2%}" if share else "",
        _verdict(held, len(rows)),
    ]


def _frozen_share(method: Method, rows: dict[int, Row], dense: dict[int, Row]) -> float | None:
    """What a run under one mask may move, as a share of the dense run: 1.05 times the part of the weights that is left, a
    mask for each client, a kilobyte a round and direction; and where the mask needs scores, for each client the dense
    model once and a byte for each weight."""
    allowed, moved = 0.0, 0.0
    for seed in rows.keys() & dense.keys():
        whole = dense[seed]["up"] + dense[seed]["down"]
        scores = dense[seed]["down"] / ROUNDS + CLIENTS * SCORED if method.frozen == "scores" else 0.0
        mask = rows[seed]["ledger"].get("mask", (0, 0))[1]
        allowed += 1.05 * rows[seed]["q"] * whole + mask + 2 * 1000 * CLIENTS * ROUNDS + scores
        moved += whole
    return allowed / moved if moved else None


def _verdict(held: list[bool], seeds: int) -> str:
    """Whether the means are within what is asked, and whether that says anything yet."""
    if not held:
        return ""
    return ("yes" if all(held) else "no") + ("" if seeds >= SEEDS_ASKED else ", so far")


def _accuracies(rows: dict[int, Row]) -> dict[int, float]:
    return {seed: row["accuracy"] for seed, row in rows.items()}


def _part(rows: dict[int, Row], others: dict[int, Row]) -> float | None:
    """What a method moved as a share of what another did, over the seeds that both have."""
    both = [seed for seed in rows if seed in others]
    moved = [sum(r[seed]["up"] + r[seed]["down"] for seed in both) for r in (rows, others)]
    return moved[0] / moved[1] if both else None


if __name__ == "__main__":
    main()
