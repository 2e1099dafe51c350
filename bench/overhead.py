"""How long a round takes beside the training: `python bench/overhead.py`.

A dense model of 50,826 parameters over loopback, one local step a round. Overhead is the round's time, from its first
assignment to its commit, less the slowest client's own time of training; the median of 20 rounds. It holds
everything else: assignments, both transfers, coding at both ends, folding, and a commit that reaches the disk. The
hundred are light clients: they pull and submit for real, but share two processes and do not train or decode.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from fedprune_lab.benching import dense_run, keep

TASK = Path(__file__).parent / "tasks" / "mlp50k.py"
ROUNDS = 21  # the first one warms up
GATES_S = {2: 0.015, 8: 0.040, 100: 0.5}
LIGHT_FROM = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--values", choices=("lossless", "raw"), default="lossless", help="as [compression] up and down"
    )
    values = parser.parse_args().values
    table = Table(title="overhead of a dense round of 50,826 weights", title_justify="left")
    for heading in ("clients", "median", "fastest", "slowest", "at most"):
        table.add_column(heading, justify="right")
    results = {}
    for clients, gate_s in GATES_S.items():
        rounds = dense_run(TASK, clients=clients, rounds=ROUNDS, light=clients >= LIGHT_FROM, values=values).rounds[1:]
        overheads = sorted(row.overhead_seconds for row in rounds)
        results[str(clients)] = {"overhead_s": overheads, "median_s": median(overheads), "at_most_s": gate_s}
        cells = (median(overheads), overheads[0], overheads[-1], gate_s)
        table.add_row(str(clients), *(f"{1000 * value:.1f} ms" for value in cells))
    Console().print(table)
    print(f"kept in {keep('overhead', results)}")


if __name__ == "__main__":
    main()
