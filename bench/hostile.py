"""Fifty hostile clients beside four honest ones: `python bench/hostile.py`.

A hostile client declines its work, so that no round waits for it, and holds every call it may: uploads of the largest
size without their last bytes, downloads and a work stream that nobody reads; each round it begins all of that anew, ten
calls, and sends the largest message. Memory is the coordinator's anonymous resident memory at its peak, above what it
takes with the honest ones alone; time is the median round. The model has 1,011,010 weights.

Coordinator and honest clients compute on one half of the machine's cores, in both runs, and the attackers on the other:
so the ratio says what the attack costs the coordinator, not what it takes to compute it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedprune.framing import MAX_CHUNK_BYTES
from fedprune_lab.benching import keep
from fedprune_lab.faults.programs import zygote
from fedprune_lab.faults.siege import Found, Plan, play, split_cores

HOSTILE = 50
MOST_BYTES = HOSTILE * 2 * MAX_CHUNK_BYTES + (64 << 20)
MOST_TIMES = 1.5


async def both(folder: Path) -> tuple[Found, Found]:
    """The run without the hostile ones, and with them."""
    ours, theirs = split_cores()
    os.sched_setaffinity(0, ours)  # and with it whatever is started from here
    async with zygote() as warm:
        alone = await play(Plan(), warm, folder / "alone")
        return alone, await play(Plan(hostile=HOSTILE, attackers_cores=theirs), warm, folder / "besieged")


def main() -> int:
    """Print and keep the figures; 1 when a bound was broken."""
    with tempfile.TemporaryDirectory(prefix="fedprune-hostile-") as folder:
        alone, besieged = asyncio.run(both(Path(folder)))
    problems = [*alone.problems, *besieged.problems]
    more, times = besieged.peak_bytes - alone.peak_bytes, besieged.median_s / alone.median_s
    table = Table(title=f"{HOSTILE} hostile clients beside {alone.plan.honest} honest ones", title_justify="left")
    for heading in ("", "alone", "besieged", "difference", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    peaks = (f"{found.peak_bytes / 1e6:.0f} MB" for found in (alone, besieged))
    table.add_row("coordinator's peak memory", *peaks, f"{more / 1e6:.0f} MB", f"{MOST_BYTES / 1e6:.0f} MB")
    rounds = (f"{found.median_s:.3f} s" for found in (alone, besieged))
    table.add_row("median round", *rounds, f"{times:.2f} times", f"{MOST_TIMES} times")
    table.add_row("refused calls", str(alone.refused), str(besieged.refused), "", "")
    Console().print(table)
    result = {"more_bytes": more, "times": times, "alone_s": alone.round_s, "besieged_s": besieged.round_s}
    print(f"kept in {keep('hostile', result)}")
    for problem in problems:
        print(problem)
    return int(bool(problems) or more > MOST_BYTES or times > MOST_TIMES)


if __name__ == "__main__":
    sys.exit(main())
