"""Does memory grow from round to round? 200 rounds of 50,826 weights, pruned and compressed: `python bench/growth.py`.

Anonymous resident memory (RssAnon) of the coordinator and of each of two clients, looked at twenty times a second.
Growth is the median over the last twenty rounds less the median over the twenty after the warm-up of forty.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from fedprune_lab.benching import keep
from fedprune_lab.faults.programs import Program, Zygote, zygote

TASK = Path(__file__).parent / "tasks" / "mlp50k.py"
ROUNDS, WARM_UP, SPAN = 200, 40, 20
CLIENTS = 2
MOST_BYTES = 5_000_000
LIMIT_S = 400.0
LOOK_S = 0.05
RUN = f"""
[run]
name = "growth"
rounds = {ROUNDS}
evaluate_every = 10
[clients]
expect = {CLIENTS}
[training]
steps = 1
[pruning]
density = 0.1
[compression]
up = "int8"
down = "int8"
top = 0.5
"""


@dataclass(slots=True, kw_only=True)
class Memory:
    """What a process held, by the round that was open."""

    program: Program
    seen: dict[int, list[int]] = field(default_factory=dict)

    def look(self, round_: int) -> None:
        """Once more."""
        try:
            status = Path(f"/proc/{self.program.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            return
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        if found:
            self.seen.setdefault(round_, []).append(1024 * int(found[1]))

    def over(self, rounds: range) -> float:
        """The median over these rounds."""
        return median(value for round_ in rounds for value in self.seen.get(round_, []))

    @property
    def growth(self) -> float:
        """Bytes between the rounds after the warm-up and the last ones."""
        return self.over(range(ROUNDS - SPAN, ROUNDS)) - self.over(range(WARM_UP, WARM_UP + SPAN))


async def watched(folder: Path, warm: Zygote) -> dict[str, Memory]:
    """Play the run and look."""
    (folder / "run.toml").write_text(RUN)
    address = f"127.0.0.1:{warm.ports.take()}"
    task, out = ["--task", str(TASK)], ["--out", str(folder / "runs")]
    server = ["server", str(folder / "run.toml"), "--address", address, *task, *out]
    programs = {"coordinator": Memory(program=await warm.start(server, log=folder / "coordinator.log"))}
    for number in range(1, CLIENTS + 1):
        name = f"client-{number}"
        client = ["client", "--server", address, *task, "--name", name, "--state", str(folder / name), "--threads", "1"]
        programs[name] = Memory(program=await warm.start(client, log=folder / f"{name}.log"))
    rounds = folder / "runs" / "growth" / "rounds.jsonl"
    coordinator = programs["coordinator"].program
    async with asyncio.timeout(LIMIT_S):
        while coordinator.running:
            done = rounds.read_bytes().count(b"\n") if rounds.exists() else 0
            for memory in programs.values():
                memory.look(done)
            await asyncio.sleep(LOOK_S)
    if await coordinator.end():
        raise SystemExit((folder / "coordinator.log").read_text()[-2000:])
    return programs


async def play(folder: Path) -> dict[str, Memory]:
    """The same, with a warm process to start from."""
    async with zygote() as warm:
        return await watched(folder, warm)


def main() -> int:
    """Print and keep the figures; 1 when something grew too much."""
    with tempfile.TemporaryDirectory(prefix="fedprune-growth-") as folder:
        programs = asyncio.run(play(Path(folder)))
    table = Table(title=f"memory over {ROUNDS} rounds of 50,826 weights", title_justify="left")
    for heading in ("", f"rounds {WARM_UP}-{WARM_UP + SPAN}", f"rounds {ROUNDS - SPAN}-{ROUNDS}", "growth", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, memory in programs.items():
        ends = (memory.over(range(WARM_UP, WARM_UP + SPAN)), memory.over(range(ROUNDS - SPAN, ROUNDS)))
        cells = (*ends, memory.growth, MOST_BYTES)
        table.add_row(name, *(f"{value / 1e6:.1f} MB" for value in cells))
    Console().print(table)
    growth = {name: memory.growth for name, memory in programs.items()}
    print(f"kept in {keep('growth', {'growth_bytes': growth})}")
    return int(max(growth.values()) > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
