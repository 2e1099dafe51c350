"""Honest clients at work while hostile ones hold whatever they can get: what that costs in memory and in time."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import save_file

from fedprune.errors import FedpruneError
from fedprune_lab.faults import plan as trials
from fedprune_lab.faults.programs import Program, Zygote
from fedprune_lab.faults.scripted import Mood, Scripted, run_all
from fedprune_lab.faults.verdict import judge

LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run of `honest` clients with `hostile` ones beside them, on a model of inputs -> hidden -> 10."""

    honest: int = 4
    hostile: int = 0
    rounds: int = 12
    # How long an honest client trains in a round, without a core.
    work_s: float = 0.0
    inputs: int = 1000
    hidden: int = 1000
    limit_s: float = 300.0
    # Where the attackers compute; nowhere else.
    attackers_cores: tuple[int, ...] = ()

    @property
    def trial(self) -> trials.Plan:
        """The run."""
        model = trials.Model(inputs=self.inputs, hidden=self.hidden)
        everyone = self.honest + self.hostile
        keys = ("pruning.density=1.0", f"network.chunk_bytes={1 << 19}", f"clients.min_clients={self.honest}")
        return trials.Plan(clients=everyone, rounds=self.rounds, model=model, overrides=keys, limit_s=self.limit_s)

    def mood(self, round_: int) -> Mood:
        """How an honest client behaves."""
        return Mood(work_s=self.work_s)


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of it: the coordinator's peak anonymous memory, and the seconds of each round."""

    plan: Plan
    peak_bytes: int = 0
    round_s: list[float] = field(default_factory=list)
    refused: int = 0
    problems: list[str] = field(default_factory=list)


def split_cores() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The machine's cores for the coordinator and its honest clients, and the rest for the attackers. Where there is one
    core only, they share it."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    half = (len(cores) + 1) // 2
    return cores[:half], cores[half:] or cores


async def play(plan: Plan, warm: Zygote, folder: Path) -> Found:
    """Play a plan in an empty folder."""
    trial, found = plan.trial, Found(plan=plan)
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(trials.TASK.format(inputs=plan.inputs, hidden=plan.hidden))
    save_file(trial.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(trial.config(folder).to_toml())
    address = f"127.0.0.1:{warm.ports.take()}"
    where = ["--out", str(folder / "runs"), "--address", address]
    coordinator = await warm.start(["server", str(folder / "run.toml"), *where], log=folder / "coordinator.log")
    watching = asyncio.create_task(_watch(coordinator, found))
    clients = [_client(plan, number, address, folder) for number in range(plan.honest)]
    besieging = await _besiege(plan, address)
    try:
        async with asyncio.timeout(plan.limit_s):
            await run_all(clients)
            await _end(besieging)  # else the coordinator waits for all of them to take their leave
            await coordinator.end()
    except TimeoutError:
        found.problems.append(f"not over after {plan.limit_s:g} s")
    except FedpruneError as error:
        found.problems.append(str(error))
    finally:
        await _end(besieging)
        await coordinator.kill()
        await watching
    _read(found, clients, folder)
    return found


def _client(plan: Plan, number: int, server: str, folder: Path) -> Scripted:
    return Scripted(
        name=f"site-{number}",
        schema=plan.trial.model.schema,
        server=server,
        folder=folder / f"client-{number}",
        chunk_bytes=1 << 19,
        mood=plan.mood,
    )


async def _besiege(plan: Plan, address: str) -> asyncio.subprocess.Process | None:
    if not plan.hostile:
        return None
    cores = ",".join(map(str, plan.attackers_cores))
    arguments = [address, str(plan.hostile), str(plan.inputs), str(plan.hidden), cores]
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "fedprune_lab.faults.hostile", *arguments)


async def _end(besieging: asyncio.subprocess.Process | None) -> None:
    if besieging is not None and besieging.returncode is None:
        besieging.kill()
        await besieging.wait()


async def _watch(coordinator: Program, found: Found) -> None:
    """Its anonymous memory, until it has ended."""
    while coordinator.running:
        try:
            status = Path(f"/proc/{coordinator.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            return
        seen = re.search(r"RssAnon:\s+(\d+) kB", status)
        found.peak_bytes = max(found.peak_bytes, 1024 * int(seen[1]) if seen else 0)
        await asyncio.sleep(LOOK_S)


def _read(found: Found, clients: list[Scripted], folder: Path) -> None:
    run = folder / "runs" / trials.RUN
    lines = (run / "rounds.jsonl").read_text().splitlines() if (run / "rounds.jsonl").exists() else []
    found.round_s = [json.loads(line)["seconds"] for line in lines]
    found.refused = sum("refused" in line for line in (run / "log.jsonl").read_text().splitlines())
    if not found.problems:
        verdict = trials.Found(plan=found.plan.trial)
        judge(verdict, clients, folder)
        found.problems = verdict.problems
