"""Fifty hostile clients beside four honest ones: `python bench/hostile.py`, with `--work-s 1` for honest ones that train.

A hostile client declines its work, so that no round waits for it, and holds every call it may: uploads of the largest
size without their last bytes, downloads and a work stream that nobody reads; each round it begins all of that anew, ten
calls, and sends the largest message; when it is hung up on, it is back within half a second. Memory is the coordinator's
anonymous resident memory at its peak, above what it takes with the honest ones alone; time is the median round of all
pairs but the first round of each run, in which the clients meet. A pair is a run alone and a run besieged, one after the
other. The model has 1,011,010 weights, and no time goes into training unless `--work-s` says so.

Coordinator and honest clients compute on one half of the machine's cores, in both runs, and the attackers on the other:
so the ratio says what the attack costs the coordinator, not what it takes to compute it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

from rich.console import Console
from rich.table import Table

from fedprune.framing import MAX_CHUNK_BYTES
from fedprune_lab.benching import keep
from fedprune_lab.faults.programs import zygote
from fedprune_lab.faults.siege import Found, Plan, play, split_cores

HOSTILE = 50
MOST_BYTES = HOSTILE * 2 * MAX_CHUNK_BYTES + (64 << 20)
MOST_TIMES = 1.5
# In these they are found out: sixteen calls are free, and a few refusals.
FIRST = slice(1, 4)


async def pairs(folder: Path, count: int, work_s: float) -> tuple[list[Found], list[Found]]:
    """Runs without the hostile ones, and with them."""
    ours, theirs = split_cores()
    os.sched_setaffinity(0, ours)  # and with it whatever is started from here
    alone, besieged = [], []
    async with zygote() as warm:
        for number in range(count):
            alone.append(await play(Plan(work_s=work_s), warm, folder / f"alone-{number}"))
            plan = Plan(hostile=HOSTILE, attackers_cores=theirs, work_s=work_s)
            besieged.append(await play(plan, warm, folder / f"besieged-{number}"))
    return alone, besieged


def seconds(runs: Sequence[Found], which: slice = slice(1, None)) -> list[float]:
    """The rounds of all runs."""
    return [second for found in runs for second in found.round_s[which]]


def main() -> int:
    """Print and keep the figures; 1 when a bound was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--work-s", type=float, default=0.0, help="seconds that an honest client trains in a round")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fedprune-hostile-") as folder:
        alone, besieged = asyncio.run(pairs(Path(folder), asked.pairs, asked.work_s))
    peaks = [max(found.peak_bytes for found in runs) for runs in (alone, besieged)]
    rounds = [median(seconds(runs)) for runs in (alone, besieged)]
    more, times = peaks[1] - peaks[0], rounds[1] / rounds[0]
    table = Table(title=f"{HOSTILE} hostile clients beside {Plan().honest} honest ones", title_justify="left")
    for heading in ("", "alone", "besieged", "difference", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    shown = (f"{peak / 1e6:.0f} MB" for peak in peaks)
    table.add_row("coordinator's peak memory", *shown, f"{more / 1e6:.0f} MB", f"{MOST_BYTES / 1e6:.0f} MB")
    table.add_row("median round", *(f"{s:.3f} s" for s in rounds), f"{times:.2f} times", f"{MOST_TIMES} times")
    for name, which in (("mean of all rounds", slice(1, None)), ("mean of rounds 2 to 4", FIRST)):
        means = [mean(seconds(runs, which)) for runs in (alone, besieged)]
        table.add_row(name, *(f"{s:.3f} s" for s in means), f"{means[1] / means[0]:.2f} times", "")
    table.add_row(
        "refused calls in the log", *(str(sum(f.refused for f in runs)) for runs in (alone, besieged)), "", ""
    )
    Console().print(table)
    result = {"more_bytes": more, "times": times, "alone_s": seconds(alone), "besieged_s": seconds(besieged)}
    print(f"kept in {keep('hostile', {**result, 'work_s': asked.work_s})}")
    problems = [problem for found in (*alone, *besieged) for problem in found.problems]
    for problem in problems:
        print(problem)
    return int(bool(problems) or more > MOST_BYTES or times > MOST_TIMES)


if __name__ == "__main__":
    sys.exit(main())
