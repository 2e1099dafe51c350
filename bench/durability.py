"""What durability costs a round: `python bench/durability.py`, on a machine with a disk and a file system in memory.

The runs of `overhead.py`, with two clients and with eight, on a disk and in memory in turn: the same code asks for the
same syncs, and in memory they cost nothing. Coordinator and clients are in the same place, so that the syncs of both
ends are in it. A round's overhead is its time from its first assignment to its commit, less the slowest client's own
time of training; the growth is the difference of the medians over all pairs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from fedprune_lab.benching import OUT, dense_run, keep

TASK = Path(__file__).parent / "tasks" / "mlp50k.py"
MOST_S = {2: 0.025, 8: 0.040}


def overheads(folder: Path, clients: int, rounds: int) -> list[float]:
    """The overhead of each round of a run in this folder, but the first, which warms up."""
    tempfile.tempdir = str(folder)
    return [row.overhead_seconds for row in dense_run(TASK, clients=clients, rounds=rounds + 1).rounds[1:]]


def main() -> int:
    """Print and keep the figures; 1 when durability costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", type=Path, default=OUT, help=f"a folder on a disk (default: {OUT})")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    parser.add_argument("--clients", type=int, nargs="+", choices=sorted(MOST_S), default=sorted(MOST_S))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    asked.disk.mkdir(parents=True, exist_ok=True)
    if asked.disk.stat().st_dev == asked.memory.stat().st_dev:
        parser.error(f"{asked.disk} and {asked.memory} are on one file system")
    table = Table(title="overhead of a dense round of 50,826 weights", title_justify="left")
    for heading in ("clients", "in memory", "on disk", "growth", "pair by pair", "at most"):
        table.add_column(heading, justify="right")
    results, broken = {}, False
    for clients in asked.clients:
        pairs = [
            (overheads(asked.memory, clients, asked.rounds), overheads(asked.disk, clients, asked.rounds))
            for _ in range(asked.pairs)
        ]
        memory, disk = (median(seconds for pair in pairs for seconds in pair[which]) for which in (0, 1))
        grown = [median(pair[1]) - median(pair[0]) for pair in pairs]
        broken |= disk - memory > MOST_S[clients]
        results[str(clients)] = {"pairs_s": pairs, "growth_s": disk - memory, "at_most_s": MOST_S[clients]}
        cells = [f"{1000 * value:.1f} ms" for value in (memory, disk, disk - memory)]
        each = " ".join(f"{1000 * value:.1f}" for value in grown)
        table.add_row(str(clients), *cells, each, f"{1000 * MOST_S[clients]:.0f} ms")
    Console().print(table)
    print(f"kept in {keep('durability', results)}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
