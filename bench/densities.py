"""What accuracy costs in bytes: the demo's digits at six densities, one after another with the same four clients.

Each density is an end of the same schedule under the same seed, so the rows differ in nothing else. Accuracy is the mean
of the last five rounds on 360 test images, so one image is 0.28 points; bytes are the socket's, all clients and both
directions, where the kernel counts them. With names of densities as arguments only those: `fedprune bench densities 1 0.1`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedprune.report import RunReport
from fedprune_lab.benching import keep
from fedprune_lab.demo import TASK, Plan
from fedprune_lab.federation import Federation
from fedprune_lab.figures import percent, size, times
from fedprune_lab.view import LineView

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)


def main(words: list[str]) -> None:
    densities = tuple(map(float, words)) or DENSITIES
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "runs"
        configs = [Plan(out=out).config(f"density-{d:g}".replace(".", "-"), d) for d in densities]
        federation = Federation(configs=configs, task=TASK, clients=4, out=out)
        runs, _ = federation.run(LineView(Console(stderr=True, quiet=True)))
    rows = [_row(density, run) for density, run in zip(densities, runs, strict=True)]
    table = Table(title="digits, 4 clients, 40 rounds, seed 1", title_justify="left", highlight=False)
    for heading in ("density", "of all", "accuracy", "whole run", "fewer than raw", "steady round", "fewer than raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        steady = (size(row["steady_round"]), times(row["steady_ratio"]))
        whole = (size(row["whole"]), times(row["whole_ratio"]))
        table.add_row(f"{row['density']:g}", percent(row["q"]), percent(row["accuracy"]), *whole, *steady)
    Console().print(table)
    print(f"kept in {keep('densities', {'rows': rows})}")


def _row(density: float, run: RunReport) -> dict[str, Any]:
    """Bytes both ways: the whole run, and one round of its last ones, which no mask change disturbs."""
    steady = run.steady_state or run.totals
    whole, late = run.totals.socket or run.totals.payload, steady.socket or steady.payload
    return {
        "density": density,
        "q": run.q,
        "accuracy": run.final.accuracy_last_rounds or 0.0,
        "whole": whole.both,
        "whole_ratio": run.totals.dense_equivalent.both / whole.both,
        "steady_round": round(late.both / steady.rounds),
        "steady_ratio": steady.dense_equivalent.both / late.both,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
