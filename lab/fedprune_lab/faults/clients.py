"""Real client processes that are killed and started again, under a coordinator that stays.

The task's own training loop writes down which weights it started from, so that work done twice shows.
"""

from __future__ import annotations

import asyncio
import csv
import json
import random
import signal
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedprune.framing import MAX_CHUNK_BYTES
from fedprune_client.outbox import read_sealed
from fedprune_lab.faults.programs import Program, Zygote
from fedprune_server.store import SqliteStore, Work, verify

RUN = "clients"
TASK = """
import hashlib, time
import torch
from torch import nn

def model():
    return nn.Sequential(nn.Linear(400, 500), nn.ReLU(), nn.Linear(500, 10))

def train_data(shard):
    global SITE
    SITE = shard.path
    return list(range(20))

def loss(model, batch):
    return torch.tensor(0.5)

def train(model, data, ctx):
    weights = [p for p in model.parameters() if p.requires_grad]
    base = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in weights)).hexdigest()
    with (SITE / "trained.log").open("a") as log:
        log.write(base + "\\n")
    seed = int(hashlib.sha256((base + SITE.name).encode()).hexdigest()[:8], 16)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in weights:
            p.add_(0.01 * torch.randn(p.shape, generator=draw))
    time.sleep(0.05)
    return 10
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`kills` clients are killed, each `seed`-drawn instant after the one before; 0 is a run without faults. With
    `stops`, one is stopped for so many rounds instead, which end at their deadline without it."""

    seed: int = 0
    clients: int = 3
    rounds: int = 8
    kills: int = 0
    stops: int = 0
    deadline_s: float = 600.0
    limit_s: float = 250.0


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of it; `sealed` says how many of the killed clients had a sealed result."""

    plan: Plan
    kills: int = 0
    sealed: int = 0
    sent_again_bytes: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


async def play(plan: Plan, warm: Zygote, folder: Path) -> Found:
    """Play a plan in an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text(TASK)
    (folder / "run.toml").write_text(
        f'[run]\nname = "{RUN}"\nrounds = {plan.rounds}\nevaluate_every = 0\n[clients]\nexpect = {plan.clients}\n'
        f"grace_s = 60.0\ndeadline_s = {plan.deadline_s}\n[pruning]\ndensity = 0.5\nevery = 2\nstart = 0.0\nend = 0.6\n"
    )
    found = Found(plan=plan)
    began = time.monotonic()
    address = f"127.0.0.1:{warm.ports.take()}"
    where = ["--task", str(folder / "task.py"), "--address", address, "--out", str(folder / "runs")]
    coordinator = await warm.start(["server", str(folder / "run.toml"), *where], log=folder / "coordinator.log")
    sites = [_Site(warm, folder, f"site-{number}", address) for number in range(plan.clients)]
    try:
        async with asyncio.timeout(plan.limit_s):
            for site in sites:
                await site.start()
            await _kill_some(plan, coordinator, sites, found)
            if plan.stops:
                await _stop_one(plan, sites[0], folder / "runs" / RUN / "rounds.jsonl", found)
            code = await coordinator.end()
        if code:
            found.problems.append(f"the coordinator ended with code {code}")
    except TimeoutError:
        found.problems.append(f"not over after {plan.limit_s:g} s")
    finally:
        await coordinator.kill()
        for site in sites:
            await site.kill()
    found.seconds = time.monotonic() - began
    if not found.problems:
        _judge(found, sites, folder / "runs" / RUN)
    return found


class _Site:
    """One client and its folder."""

    def __init__(self, warm: Zygote, folder: Path, name: str, address: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self._warm = warm
        self._arguments = ["client", "--server", address, "--task", str(folder / "task.py"), "--name", name]
        self._arguments += ["--data", str(self.folder), "--state", str(folder / "state"), "--threads", "1"]
        self._outbox = folder / "state" / name / "outbox"
        self._program: Program | None = None
        # Times that weights were trained from, when their result was already sealed.
        self.sealed: Counter[str] = Counter()

    async def start(self) -> None:
        self._program = await self._warm.start(self._arguments, log=self.folder / "client.log")

    async def kill(self) -> None:
        if self._program is not None:
            await self._program.kill()

    def signal(self, number: signal.Signals) -> None:
        """Stop it, or let it go on."""
        assert self._program is not None
        self._program.signal(number)

    async def kill_and_start(self) -> bool:
        """Kill it where it stands and start it again; True when it had a sealed result."""
        await self.kill()
        sealed = any(read_sealed(path) for path in self._outbox.glob("*.result"))
        if sealed and self.trained:
            self.sealed[self.trained[-1]] = self.trained.count(self.trained[-1])
        await self.start()
        return sealed

    @property
    def trained(self) -> list[str]:
        """The weights that training started from, in order."""
        log = self.folder / "trained.log"
        return log.read_text().split() if log.exists() else []


async def _kill_some(plan: Plan, coordinator: Program, sites: list[_Site], found: Found) -> None:
    rng = random.Random(plan.seed)
    while found.kills < plan.kills:
        if await coordinator.ended(rng.uniform(0.1, 1.2)) is not None:
            return
        found.sealed += await rng.choice(sites).kill_and_start()
        found.kills += 1


async def _stop_one(plan: Plan, site: _Site, rounds: Path, found: Found) -> None:
    """The others go on without it, and it goes on with them when it may."""

    async def counted(clients: int, more: int) -> None:
        wanted = len(_rows(rounds)) + more
        while len(_rows(rounds)) < wanted or _rows(rounds)[-1]["clients_counted"] != clients:
            await asyncio.sleep(0.02)

    await counted(plan.clients, 2)
    site.signal(signal.SIGSTOP)
    await counted(plan.clients - 1, plan.stops)
    site.signal(signal.SIGCONT)
    await counted(plan.clients, 1)
    without = sum(row["clients_counted"] < plan.clients for row in _rows(rounds))
    if without > plan.stops + 3:
        found.problems.append(f"{without} rounds were without the client that was stopped for {plan.stops}")


def _rows(rounds: Path) -> list[dict[str, Any]]:
    # What stands behind the last line break is being written.
    lines = rounds.read_text().split("\n")[:-1] if rounds.exists() else []
    return [json.loads(line) for line in lines]


def _judge(found: Found, sites: list[_Site], run: Path) -> None:
    found.problems += verify(run).problems
    with closing(SqliteStore(run / "state")) as store:
        run_id = store.runs()[0].run_id
        for round_ in range(1, found.plan.rounds + 1):
            clients = [receipt.client for receipt in store.receipts(run_id, round_, Work.TRAIN)]
            if len(set(clients)) != len(clients):
                found.problems.append(f"round {round_} counts a client twice: {clients}")
    for site in sites:
        counts = Counter(site.trained)
        again = [base[:8] for base, times in site.sealed.items() if counts[base] > times]
        if again:
            found.problems.append(f"{site.folder.name} trained again although its result was sealed: {again}")
    with (run / "ledger.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "retransmit" and row["direction"] == "up"]
    found.sent_again_bytes = sum(int(row["bytes"]) for row in rows)
    if found.sent_again_bytes > found.kills * MAX_CHUNK_BYTES:
        found.problems.append(f"{found.sent_again_bytes} bytes were sent again after {found.kills} kills")
