"""Mutated messages and streams against a coordinator at work: only defined statuses, no hang, and the run goes on.

A case is drawn from its seed and number alone, which a failure names, so that it can be had again.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.transport import Link

from .federation import Federation, run_file, task_file, until
from .stranger import Stranger

SERVICE = "/fedprune.v1.Coordinator/"
DEFINED = {
    "OK",
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "RESOURCE_EXHAUSTED",
    "DATA_LOSS",
    "ALREADY_EXISTS",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
}
# A hang; the machine may be slow, so this is no measurement.
HANG_S = 10.0
MEMORY_BYTES = 96 << 20


@dataclass(frozen=True, slots=True)
class Case:
    """One call: its method and the bytes of its messages."""

    method: str
    messages: tuple[bytes, ...]


def mutated(data: bytes, chance: Random) -> bytes:
    """The bytes, a little or very wrong."""
    wrong = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(wrong) + 1)
        match chance.randrange(6):
            case 0 if wrong:
                wrong[at - 1] ^= 1 << chance.randrange(8)
            case 1:
                del wrong[at:]
            case 2:
                wrong[at:at] = chance.randbytes(chance.randrange(1, 12))
            case 3:
                wrong[at : at + 10] = b"\xff" * 9 + b"\x01"
            case 4:
                wrong[at:at] = wrong[: chance.randrange(len(wrong) + 1)]
            case _:
                del wrong[at : at + chance.randrange(1, 9)]
    return bytes(wrong)


class Attacks:
    """Cases against one open assignment."""

    def __init__(self, mallory: Stranger, work: Assignment, frame: bytes) -> None:
        self.mallory, self.work, self.frame = mallory, work, frame
        self.kinds: tuple[Callable[[Random], Case], ...] = (
            self.join,
            self.pull,
            self.status,
            self.stream,
            self.announcement,
            self.order,
            self.sealed_frame,
            self.wrong_bytes,
        )

    def case(self, chance: Random) -> Case:
        """Some case."""
        return chance.choice(self.kinds)(chance)

    def join(self, chance: Random) -> Case:
        request = pb.JoinRequest(codec_version=CODEC_VERSION, tensors=wire.schema_message(self.mallory.schema))
        return Case("Join", (mutated(request.SerializeToString(), chance),))

    def pull(self, chance: Random) -> Case:
        request = pb.PullRequest(
            run_id=self.work.run_id,
            want=wire.version_message(self.work.version),
            held=wire.version_message(Version(model=chance.randrange(3))),
            part=chance.randrange(3),
            offset=chance.choice((0, 1, 10**6, 2**63, 2**64 - 1)),
            part_sha256="0" * 64,
        )
        return Case("Pull", (mutated(request.SerializeToString(), chance),))

    def status(self, chance: Random) -> Case:
        return Case("Status", (chance.randbytes(chance.randrange(30)),))

    def stream(self, chance: Random) -> Case:
        said = (
            pb.ClientMessage(heartbeat=pb.Heartbeat()),
            pb.ClientMessage(progress=pb.Progress(assignment_id=chance.randrange(4), step=1, steps=2)),
            pb.ClientMessage(failure=pb.Failure(assignment_id=2**64 - 1, reason="x" * chance.randrange(2000))),
        )
        return Case("Work", tuple(mutated(m.SerializeToString(), chance) for m in said))

    def announcement(self, chance: Random) -> Case:
        begin = pb.SubmitRequest(begin=self.mallory.begin(self.work, self.frame, metrics={"loss": 0.5}))
        return Case("Submit", (mutated(begin.SerializeToString(), chance), *self.chunks(chance, self.frame)))

    def order(self, chance: Random) -> Case:
        """The right messages, some of them missing, twice or elsewhere."""
        begin = pb.SubmitRequest(begin=self.mallory.begin(self.work, self.frame, eager=chance.random() < 0.5))
        messages = [begin.SerializeToString(), *self.chunks(chance, self.frame)]
        drawn = chance.choices(messages, k=chance.randrange(len(messages) + 3))
        return Case("Submit", tuple(drawn))

    def sealed_frame(self, chance: Random) -> Case:
        """A wrong frame under its right digest: what the decoder itself has to refuse."""
        frame = mutated(self.frame, chance)
        begin = pb.SubmitRequest(begin=self.mallory.begin(self.work, frame))
        return Case("Submit", (begin.SerializeToString(), *self.chunks(chance, frame)))

    def wrong_bytes(self, chance: Random) -> Case:
        begin = pb.SubmitRequest(begin=self.mallory.begin(self.work, self.frame))
        return Case("Submit", (begin.SerializeToString(), *self.chunks(chance, mutated(self.frame, chance))))

    @staticmethod
    def chunks(chance: Random, frame: bytes) -> list[bytes]:
        size = chance.choice((1 << 19, 1000, 333))
        pieces = [frame[at : at + size] for at in range(0, len(frame), size)]
        return [pb.SubmitRequest(chunk=piece).SerializeToString() for piece in pieces]


def status_of(channel: Any, case: Case, metadata: Any) -> tuple[str, str]:
    """How the call ends, and what is said to it. Blocking calls: in the asynchronous ones, a message that crosses a
    refusal hides it."""
    path = SERVICE + case.method
    match case.method:
        case "Join" | "Status":
            call = channel.unary_unary(path).future(case.messages[0], metadata=metadata, timeout=HANG_S)
            call.exception()
        case "Pull":
            call = channel.unary_stream(path)(case.messages[0], metadata=metadata, timeout=HANG_S)
            drain(call)
        case _:
            call = channel.stream_stream(path)(iter(case.messages), metadata=metadata, timeout=HANG_S)
            drain(call)
    return call.code().name, call.details()


def drain(call: Any) -> None:
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        return


class HeldLink(Link):
    """Submits when it may."""

    def __init__(self, server: str, identity: str, say: Callable[[str], None], may: asyncio.Event) -> None:
        super().__init__(server, identity, say=say)
        self._may = may

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        await self._may.wait()
        return await super().submit(begin, frame, chunk_bytes=chunk_bytes)


async def besiege(folder: Path, *, seed: int, cases: int) -> Counter[tuple[str, str]]:
    """So many cases against a round that is open; afterwards everyone submits and the run has to finish."""
    federation = Federation(folder, task_file(folder), [run_file("run.rounds=2", "clients.expect=2")])
    schema = federation.server.workshop.schema
    may = asyncio.Event()
    seen: Counter[tuple[str, str]] = Counter()
    async with (
        federation.serving(longest_s=1200) as serving,
        Stranger(federation.address, "mallory", schema) as mallory,
        Stranger(federation.address, "talker", schema) as talker,
    ):
        channel = grpc.insecure_channel(federation.address)
        federation.start("a", link=partial(held, may))
        await mallory.come()
        work = await mallory.assignment()
        await talker.join()
        attacks = Attacks(mallory, work, await poisoned(mallory, work))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        for number in range(cases):
            case = attacks.case(Random(f"{seed}/{number}"))
            # Who opens a second stream ends its first: the talker has none to lose.
            stranger = talker if case.method == "Work" else mallory
            status, said = await asyncio.to_thread(status_of, channel, case, stranger.metadata)
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


def held(may: asyncio.Event, server: str, identity: str, say: Callable[[str], None]) -> Link:
    return HeldLink(server, identity, say, may)


async def test_a_few_hundred_wrong_messages(tmp_path: Path) -> None:
    seen = await besiege(tmp_path, seed=1, cases=400)
    assert {method for method, _ in seen} == {"Join", "Pull", "Status", "Work", "Submit"}
    assert {status for _, status in seen} >= {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "DATA_LOSS"}


@pytest.mark.faults
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(2, 6))
async def test_twenty_thousand_wrong_messages(tmp_path: Path, seed: int) -> None:
    await besiege(tmp_path, seed=seed, cases=5000)
