"""Uploads over a link that breaks: each must end in exactly one receipt, and a break must cost at most a chunk.

Between clients and coordinator stands the lab's relay, which is slow, resets connections and falls silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import save_file

from fedprune.errors import FedpruneError
from fedprune_lab.faults import plan as trials
from fedprune_lab.faults.programs import Zygote
from fedprune_lab.faults.scripted import Scripted, run_all
from fedprune_lab.faults.verdict import judge
from fedprune_lab.link import Link
from fedprune_lab.relay import Relay

CHUNK_BYTES = 1 << 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`breaks` resets of all connections, the next one up to `every_s` after the link came back; before that it is
    silent for up to `silent_s`. Instants are drawn from the seed."""

    seed: int = 0
    clients: int = 1
    rounds: int = 1
    inputs: int = 400
    hidden: int = 500
    bytes_per_s: float = 0.0
    breaks: int = 5
    every_s: float = 1.0
    silent_s: float = 0.0
    limit_s: float = 400.0

    @property
    def trial(self) -> trials.Plan:
        """The run behind the link."""
        model = trials.Model(inputs=self.inputs, hidden=self.hidden)
        pruning = ("pruning.density=1.0", f"network.chunk_bytes={CHUNK_BYTES}", "clients.grace_s=120.0")
        return trials.Plan(seed=self.seed, clients=self.clients, rounds=self.rounds, model=model, overrides=pruning)


@dataclass(slots=True, kw_only=True)
class Found:
    """What came of it; `extra_chunks` is what went up beyond the updates themselves, all clients together."""

    plan: Plan
    breaks: int = 0
    receipts: int = 0
    update_bytes: int = 0
    up_bytes: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def extra_chunks(self) -> float:
        """What the breaks cost."""
        return (self.up_bytes - self.update_bytes) / CHUNK_BYTES


async def play(plan: Plan, warm: Zygote, folder: Path) -> Found:
    """Play a plan in an empty folder."""
    trial = plan.trial
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(trials.TASK.format(inputs=plan.inputs, hidden=plan.hidden))
    save_file(trial.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(trial.config(folder).to_toml())
    port = warm.ports.take()
    found, began = Found(plan=plan), time.monotonic()
    where = ["--out", str(folder / "runs"), "--address", f"127.0.0.1:{port}"]
    coordinator = await warm.start(["server", str(folder / "run.toml"), *where], log=folder / "coordinator.log")
    async with Relay("127.0.0.1", port) as relay:
        relay.link = Link(rate_bit_per_s=8 * plan.bytes_per_s)
        clients = [_client(trial, n, f"127.0.0.1:{relay.port}", folder) for n in range(plan.clients)]
        breaking = asyncio.create_task(_break(plan, relay, clients, found))
        try:
            async with asyncio.timeout(plan.limit_s):
                await run_all(clients)
                await coordinator.end()
        except TimeoutError:
            found.problems.append(f"not over after {plan.limit_s:g} s")
        except FedpruneError as error:
            found.problems.append(str(error))
        finally:
            breaking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await breaking
            await coordinator.kill()
        found.up_bytes = relay.total.up
    found.seconds = time.monotonic() - began
    found.update_bytes = sum(client.sealed_bytes for client in clients)
    if not found.problems:
        verdict = trials.Found(plan=trial)
        judge(verdict, clients, folder)
        found.receipts, found.problems = verdict.receipts, verdict.problems
    return found


def _client(trial: trials.Plan, number: int, server: str, folder: Path) -> Scripted:
    return Scripted(
        name=f"site-{number}",
        schema=trial.model.schema,
        server=server,
        folder=folder / f"client-{number}",
        chunk_bytes=CHUNK_BYTES,
    )


async def _break(plan: Plan, relay: Relay, clients: list[Scripted], found: Found) -> None:
    """Break the link while results are on their way."""
    rng = random.Random(plan.seed)
    while found.breaks < plan.breaks:
        await asyncio.sleep(rng.uniform(0.2, 1.0) * plan.every_s)
        if not any(client.sealed_bytes for client in clients):
            continue
        relay.cut()
        found.breaks += 1
        if plan.silent_s:
            relay.hold()
            await asyncio.sleep(rng.uniform(0.1, 1.0) * plan.silent_s)
            relay.release()
