"""Did it prune the right weights? `python bench/teacher.py`: F1 of the final mask against that of a known sparse teacher.

Four clients, 60 rounds over gRPC, density 0.1 as in the teacher, by every way to choose that can find out; a random mask
as the control that cannot. Floors keep a weight of each row and column, also where the teacher has none: a mask that
holds all of the teacher's weights has an F1 a little below 1.
"""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file

from fedprune.config import RunConfig
from fedprune.task import load_task
from fedprune_lab.benching import keep
from fedprune_lab.one_process import OneProcess

TASK = Path(__file__).parent / "tasks" / "teacher.py"
CLIENTS = 4
BASE = f"""
[run]
rounds = 60
[clients]
expect = {CLIENTS}
min_clients = {CLIENTS}
[training]
epochs = 2
learning_rate = 0.5
momentum = 0.0
held_out = 0.0
[pruning]
density = 0.1
prune = ["*"]
floor = 0
floor_share = 0.0
"""
REGROW = ('schedule="regrow"', 'method="random"', "every=2", "start=0.0")
METHODS: dict[str, tuple[str, ...]] = {
    "gradual magnitude": (),
    "once, magnitude": ('schedule="once"', "start=0.3"),
    "once, Taylor": ('schedule="once"', "start=0.3", 'method="taylor"'),
    "once, Taylor, merged by majority": ('schedule="once"', "start=0.3", 'method="taylor"', 'merge="majority"'),
    "before round 1, gradient": ('schedule="init"', 'method="gradient"'),
    "regrowth by votes": (*REGROW, 'regrow="votes"'),
    "regrowth by gradient": (*REGROW, 'regrow="gradient"'),
    "regrowth by posteriors": (*REGROW, 'regrow="posterior"'),
    "random (control)": ('schedule="init"', 'method="random"'),
}


def main() -> None:
    names = {f"run-{number}": name for number, name in enumerate(METHODS, 1)}
    configs = [
        RunConfig.loads(BASE, overrides=(f'run.name="{run}"', *(f"pruning.{key}" for key in METHODS[name])))
        for run, name in names.items()
    ]
    table = Table(title="F1 against the teacher's mask", title_justify="left", highlight=False)
    table.add_column("method")
    table.add_column("F1", justify="right")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        OneProcess(configs=configs, task=load_task(TASK), clients=CLIENTS, out=out).run()
        for run, name in names.items():
            found[name] = f1(out / run / "model.safetensors")
            table.add_row(name, f"{found[name]:.3f}")
    Console().print(table)
    print(f"kept in {keep('teacher', found)}")


def f1(model: Path) -> float:
    """Of the weights that are not zero in a finished model."""
    (weights,) = load_file(model).values()
    kept, wanted = weights != 0, np.asarray(runpy.run_path(str(TASK))["truth"]() != 0)
    return float(2 * np.count_nonzero(kept & wanted) / (np.count_nonzero(kept) + np.count_nonzero(wanted)))


if __name__ == "__main__":
    main()
