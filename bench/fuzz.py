"""Mutated messages and chunk streams against a coordinator at work: `python bench/fuzz.py --cases 200000`.

The coordinator is a process of its own with a round open; blocking calls come from a few threads, each of them a client,
since the newest call of a client ends the one before. Each must end with a
defined status within a second, the coordinator's anonymous memory may rise by twice what was declared at a time and 32
MiB, and when it is over the run must go on and end with the model of its accepted sets. A case that breaks this is
named by seed and number, and `--only NUMBER...` plays it again.

A case that took longer than a second is played again when all others are over, three times at most: on a machine with
other work any call may wait, but one that hangs hangs again. How many there were is printed.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from safetensors.numpy import save_file

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION, encode_update
from fedprune.parts import Part
from fedprune.tensor import Schema
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.replica import Replica
from fedprune_client.transport import IDENTITY_KEY, Link
from fedprune_lab.faults.fuzz import DEFINED, Attacks, status_of
from fedprune_lab.faults.plan import TASK, Found, Plan
from fedprune_lab.faults.programs import Program, zygote
from fedprune_lab.faults.scripted import Scripted, run_all
from fedprune_lab.faults.verdict import judge

THREADS = 4
HANG_S, LIMIT_S = 1.0, 20.0
TRIES = 3
SPARE_BYTES = 32 << 20
NAMES = [f"mallory-{number}" for number in range(THREADS)]
PLAN = Plan(
    clients=THREADS + 1,
    rounds=2,
    overrides=(
        "clients.deadline_s=7200.0",
        "clients.grace_s=7200.0",
        "pruning.density=1.0",
        "network.stall_s=5.0",
        "network.max_lost_bytes_per_s=0",
    ),
)


@dataclass(slots=True)
class Seen:
    """What the calls ended with, the slowest of them, and what broke a promise."""

    endings: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest_s: float = 0.0
    largest_bytes: int = 0
    slow: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def attack(address: str, attacks: Sequence[Attacks], seen: Seen, seed: int, numbers: Sequence[int]) -> None:
    """The cases of these numbers, one after another, all by one client."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        for number in numbers:
            took_s = once(channel, attacks, seen, seed, number)
            seen.slowest_s = max(seen.slowest_s, took_s)
            if took_s > HANG_S:
                seen.slow.append(number)


def again(address: str, attacks: Sequence[Attacks], seen: Seen, seed: int, numbers: Sequence[int]) -> None:
    """The cases that took too long, alone."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        for number in numbers:
            if all(once(channel, attacks, seen, seed, number) > HANG_S for _ in range(TRIES)):
                seen.problems.append(f"seed {seed}, case {number}: more than {HANG_S:g} s each time")


def once(channel: Any, attacks: Sequence[Attacks], seen: Seen, seed: int, number: int) -> float:
    """One case; the seconds it took."""
    case = attacks[number % THREADS].case(seed, number)
    # Who opens a second stream ends its first: the talker has none to lose.
    name = "talker" if case.method == "Work" else NAMES[number % THREADS]
    began_s = time.monotonic()
    status, said = status_of(channel, case, ((IDENTITY_KEY, name),), timeout_s=LIMIT_S)
    took_s = time.monotonic() - began_s
    seen.endings[case.method, status] += 1
    seen.largest_bytes = max(seen.largest_bytes, case.declared_bytes)
    if status not in DEFINED:
        seen.problems.append(f"seed {seed}, case {number}: {case.method} {status} in {took_s:.2f} s: {said}")
    return took_s


async def opened(address: str, name: str, schema: Schema) -> tuple[Assignment | None, bytes]:
    """Join and hear the first assignment; the talker gets none. An update of weights that are not finite."""
    link = Link(address, name, say=lambda text: None)
    request = pb.JoinRequest(codec_version=CODEC_VERSION, tensors=wire.schema_message(schema))
    await link.join(request)
    replica = Replica(schema=schema)
    async for message in link.work(silence()):
        if message.WhichOneof("event") == "start":
            roles = wire.roles(message.start.roles, party=address)
            replica = Replica(schema=schema.with_roles(roles))
        if message.WhichOneof("event") == "assignment":
            work = wire.assignment(message.assignment, party=address)
            break
    else:
        return None, b""

    async def apply(part: Part, data: memoryview) -> None:
        replica.apply(part, data)

    await link.pull(work.run_id, replica, work.version, apply)
    await link.close()
    weights = {tensor: np.full_like(array, np.nan) for tensor, array in replica.weights.items()}
    assert replica.mask is not None
    frame = encode_update(weights, schema=replica.schema, mask=replica.mask, base=replica.weights, version=work.version)
    return work, frame


async def silence() -> AsyncIterator[pb.ClientMessage]:
    """Nothing to say."""
    await asyncio.Event().wait()
    yield pb.ClientMessage()


def held_bytes(program: Program) -> int:
    """Its anonymous memory."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{program.pid}/status").read_text())
    return 1024 * int(found[1]) if found else 0


async def besiege(folder: Path, *, seed: int, numbers: Sequence[int]) -> Seen:
    """All of it."""
    (folder / "task.py").write_text(TASK.format(inputs=PLAN.model.inputs, hidden=PLAN.model.hidden))
    save_file(PLAN.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(PLAN.config(folder).to_toml())
    seen, schema = Seen(), PLAN.model.schema
    async with zygote() as warm:
        address = f"127.0.0.1:{warm.ports.take()}"
        server = ["server", str(folder / "run.toml"), "--out", str(folder / "runs"), "--address", address]
        coordinator = await warm.start(server, log=folder / "coordinator.log")
        opening = [opened(address, name, schema) for name in (*NAMES, "site-0")]
        *given, _ = await asyncio.gather(*opening)
        attacks = [Attacks(schema, work, frame) for work, frame in given if work is not None]
        talker = Link(address, "talker", say=lambda text: None)
        await talker.join(pb.JoinRequest(codec_version=CODEC_VERSION, tensors=wire.schema_message(schema)))
        await siege(coordinator, partial(attack, address, attacks, seen, seed), seen, numbers)
        await asyncio.to_thread(again, address, attacks, seen, seed, seen.slow)
        await talker.close()
        await finish(coordinator, address, folder, seen)
    return seen


async def siege(coordinator: Program, threads: partial[None], seen: Seen, numbers: Sequence[int]) -> None:
    """The threads at work, and an eye on the memory."""
    before = peak = held_bytes(coordinator)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [[number for number in numbers if number % THREADS == thread] for thread in range(THREADS)]
        working = [loop.run_in_executor(pool, threads, part) for part in parts]
        while not all(task.done() for task in working) and coordinator.running:
            peak = max(peak, held_bytes(coordinator))
            await asyncio.sleep(0.1)
        await asyncio.gather(*working)
    if not coordinator.running:
        seen.problems.append("the coordinator ended")
    most = 2 * THREADS * seen.largest_bytes + SPARE_BYTES
    print(f"memory rose by {(peak - before) / 1e6:.1f} MB, at most {most / 1e6:.1f} MB", flush=True)
    if peak - before > most:
        seen.problems.append(f"memory rose by {peak - before} bytes")


async def finish(coordinator: Program, address: str, folder: Path, seen: Seen) -> None:
    """The run goes on."""
    clients = [
        Scripted(name=name, schema=PLAN.model.schema, server=address, folder=folder / name)
        for name in ("site-0", *NAMES)
    ]
    async with asyncio.timeout(60):
        await run_all(clients)
        code = await coordinator.end()
    verdict = Found(plan=PLAN)
    judge(verdict, clients, folder)
    seen.problems += [*verdict.problems, *([f"the coordinator ended with {code}"] if code else [])]


def main() -> int:
    """Print what was seen; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="these cases, and no others")
    asked = parser.parse_args()
    numbers = asked.only or range(asked.cases)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedprune-fuzz-") as folder:
        seen = asyncio.run(besiege(Path(folder), seed=asked.seed, numbers=numbers))
    for (method, status), count in sorted(seen.endings.items()):
        print(f"{method:8} {status:22} {count:8,}")
    took_s = time.monotonic() - began_s
    print(f"{len(numbers):,} cases of seed {asked.seed} in {took_s:.0f} s, the slowest {seen.slowest_s:.2f} s")
    print(f"{len(seen.slow):,} took longer than {HANG_S:g} s, and were played again")
    for problem in seen.problems:
        print(problem)
    return int(bool(seen.problems))


if __name__ == "__main__":
    sys.exit(main())
