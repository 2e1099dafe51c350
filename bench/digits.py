"""The demo's two runs under five seeds: `python bench/digits.py`.

Accuracy is the mean of the last five rounds on 360 test images, so one image is 0.28 points. Bytes are the socket's, in
the steady state, against both dense baselines: `raw` (four bytes for each weight) and `same codec` (what the dense run
moved in the same rounds). Seeds change the first weights and the batches; who owns which image stays.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from fedprune_lab.benching import keep
from fedprune_lab.demo import Plan, run_demo
from fedprune_lab.figures import percent, times

SEEDS = (1, 2, 3, 4, 5)


def main() -> None:
    results = [_one(seed) for seed in SEEDS]
    table = Table(title="digits, density 0.1 against dense; raw and same codec", title_justify="left", highlight=False)
    for heading in ("seed", "dense", "pruned", "gap", "raw up", "raw down", "same up", "same down", "0.93/q"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in results:
        ratios = [times(found[baseline][way]) for baseline in ("raw", "same_codec") for way in ("up", "down")]
        accuracy = (percent(found["dense"]), percent(found["pruned"]))
        gap = f"{100 * (found['dense'] - found['pruned']):.2f}"
        table.add_row(str(found["seed"]), *accuracy, gap, *ratios, times(0.93 / found["q"]))
    Console().print(table)
    gap = mean(found["dense"] - found["pruned"] for found in results)
    print(f"mean gap {100 * gap:.2f} points (at most 1), raw at least 9.5x, same codec at least 0.93/q")
    print(f"kept in {keep('digits', {'seeds': results, 'mean_gap': gap})}")


def _one(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        whole = run_demo(Plan(out=Path(folder) / "demo", seed=seed), Console(stderr=True, quiet=True))
    dense, pruned = (run["final"]["accuracy_last_rounds"] for run in whole["runs"])
    found = whole["comparison"]
    steady = found["steady_state"]
    ratios = {"raw": steady["raw"], "same_codec": steady["same_codec"]}
    return {"seed": seed, "dense": dense, "pruned": pruned, "q": found["q"], **ratios}


if __name__ == "__main__":
    main()
