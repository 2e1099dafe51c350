"""Mutated messages and streams against a coordinator at work: only defined statuses, no hang, and the run goes on.

A case is drawn from its seed and number alone, which a failure names, so that it can be had again.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file

from fedprune.assignment import Assignment
from fedprune_lab.faults.fuzz import DEFINED, Attacks, status_of

from .federation import Federation, holding, run_file, task_file, until
from .stranger import Stranger

# A hang; the machine may be slow, so this is no measurement.
HANG_S = 60.0
MEMORY_BYTES = 96 << 20


async def besiege(folder: Path, *, seed: int, cases: int) -> Counter[tuple[str, str]]:
    """So many cases against a round that is open; afterwards everyone submits and the run has to finish."""
    federation = Federation(
        folder, task_file(folder), [run_file("run.rounds=2", "clients.expect=2", "network.max_lost_bytes_per_s=0")]
    )
    schema = federation.server.workshop.schema
    may = asyncio.Event()
    seen: Counter[tuple[str, str]] = Counter()
    async with (
        federation.serving(longest_s=1200) as serving,
        Stranger(federation.address, "mallory", schema) as mallory,
        Stranger(federation.address, "talker", schema) as talker,
    ):
        channel = grpc.insecure_channel(federation.address)
        federation.start("a", link=holding(may))
        await mallory.come()
        work = await mallory.assignment()
        await talker.join()
        attacks = Attacks(mallory.schema, work, await poisoned(mallory, work))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        for number in range(cases):
            case = attacks.case(seed, number)
            # Who opens a second stream ends its first: the talker has none to lose.
            stranger = talker if case.method == "Work" else mallory
            call = partial(status_of, channel, case, stranger.metadata, timeout_s=HANG_S)
            status, said = await asyncio.to_thread(call)
            assert status in DEFINED, f"seed {seed}, case {number}: {case.method} ended with {status}: {said}"
            assert not serving.done(), f"seed {seed}, case {number}: {case.method} ended the run"
            seen[case.method, status] += 1
        channel.close()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
        assert grown < MEMORY_BYTES
        frame = await mallory.update(work)
        await mallory.submit(mallory.begin(work, frame), frame)
        may.set()
        await until(lambda: len(federation.rounds) == 1, serving)
        final = await mallory.assignment()
        assert replace(final, assignment_id=0).round == 2
        frame = await mallory.update(final)
        await mallory.submit(mallory.begin(final, frame), frame)
        assert await federation.end(serving)
    assert [r.clients_counted for r in federation.rounds] == [2, 2]
    model = load_file(folder / "runs" / "run" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in model.values())
    return seen


async def poisoned(mallory: Stranger, work: Assignment) -> bytes:
    """An update that can never count, so that the assignment stays open whatever is sent."""
    replica = await mallory.pull(work.version)
    weights = {name: array.copy() for name, array in replica.weights.items()}
    weights["0.bias"][:] = np.nan
    return mallory.encode(work, replica, weights)


async def test_a_few_hundred_wrong_messages(tmp_path: Path) -> None:
    seen = await besiege(tmp_path, seed=1, cases=400)
    assert {method for method, _ in seen} == {"Join", "Pull", "Status", "Work", "Submit"}
    assert {status for _, status in seen} >= {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "DATA_LOSS"}


@pytest.mark.faults
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(2, 6))
async def test_twenty_thousand_wrong_messages(tmp_path: Path, seed: int) -> None:
    seen = await besiege(tmp_path, seed=seed, cases=5000)
    assert sum(seen.values()) == 5000
