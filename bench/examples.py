"""The expected figures of the examples: each one dense and then pruned, as its run file says, with the same clients.

With names of examples as arguments only those: `fedprune bench examples tabular`. `own_images` needs the reader's files
and is left out. Accuracy is the mean of the last five rounds on the coordinator's test data; bytes are the payload, all
clients and both directions.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedprune.config import RunConfig
from fedprune.report import RunReport
from fedprune_lab.benching import keep
from fedprune_lab.federation import Federation
from fedprune_lab.figures import percent, size, times
from fedprune_lab.view import LineView

EXAMPLES = Path("examples")
FOLDERS = ("characters", "digits_cnn", "mnist1d", "tabular", "transformer")


def main(words: list[str]) -> None:
    found = {name: _both(EXAMPLES / name) for name in words or FOLDERS}
    table = Table(title="the examples, seed 1", title_justify="left", highlight=False)
    for heading in ("example", "density", "accuracy", "whole run", "steady round", "fewer than raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, rows in found.items():
        for row in rows:
            sizes = (size(row["whole"]), size(row["steady_round"]), times(row["steady_ratio"]))
            table.add_row(name, f"{row['density']:.2g}", percent(row["accuracy"]), *sizes)
    Console().print(table)
    print(f"kept in {keep('examples', found)}")


def _both(folder: Path) -> list[dict[str, Any]]:
    ways = {"dense": ["run.name=dense", "pruning.density=1.0"], "pruned": ["run.name=pruned"]}
    configs = [RunConfig.load(folder / "run.toml", overrides) for overrides in ways.values()]
    clients = configs[0].clients.expect
    with tempfile.TemporaryDirectory() as out:
        federation = Federation(configs=configs, task=folder / "task.py", clients=clients, out=Path(out) / "runs")
        runs, _ = federation.run(LineView(Console(stderr=True, quiet=True)))
    last = min(run.steady_state.rounds for run in runs if run.steady_state)
    return [_row(run, last) for run in runs]


def _row(run: RunReport, last: int) -> dict[str, Any]:
    """`last` rounds at the end of both runs are compared: those that the pruned one spends in its steady state."""
    late = run.rounds[-last:]
    moved = sum(row.payload.both for row in late)
    return {
        "density": run.final.density,
        "accuracy": run.final.accuracy_last_rounds,
        "whole": run.totals.payload.both,
        "steady_round": round(moved / last),
        "raw_round": round(sum(row.dense_equivalent.both for row in late) / last),
        "steady_ratio": sum(row.dense_equivalent.both for row in late) / moved,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
