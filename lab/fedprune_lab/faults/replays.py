"""What was submitted once, submitted again and again: by its sender, by others, with other bytes, out of order.

Clients take part in a run as ever. What they sent is kept, and sent again on the Work stream and by Submit calls, while
the last round is held open, before and after the coordinator was killed and started again. The same bytes must get the
same receipt, everything else must be refused, and the model must be the one of each update counted once.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from safetensors.numpy import save_file

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.errors import RemoteError
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_client.replica import Replica
from fedprune_client.transport import IDENTITY_KEY, Link
from fedprune_lab.faults.plan import TASK, Found, Plan
from fedprune_lab.faults.programs import Program, Zygote
from fedprune_lab.faults.scripted import Scripted, examples_of, look_again_at_once, run_all
from fedprune_lab.faults.verdict import judge

ROUNDS = 6
ANSWER_S = 60.0
WAYS = ("same on stream", "same by call", "other bytes", "another client", "bytes first")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One update as it went out, and the receipt it got."""

    begin: pb.Begin
    frame: bytes
    receipt: pb.Receipt


@dataclass(slots=True, kw_only=True)
class Keeping(Scripted):
    """A client that keeps what it sends; it works on the last round only once `may_end` is set."""

    may_end: asyncio.Event
    link: Link | None = None
    frames: dict[int, tuple[pb.Begin, bytes]] = field(default_factory=dict)

    async def _attend(self, link: Link) -> None:
        self.link = link
        await Scripted._attend(self, link)

    async def _do(self, link: Link, assignment: Assignment) -> None:
        if assignment.round == ROUNDS:
            await self.may_end.wait()
        await Scripted._do(self, link, assignment)

    def _frame(self, replica: Replica, assignment: Assignment) -> bytes:
        frame = Scripted._frame(self, replica, assignment)
        begin = pb.Begin(
            assignment_id=assignment.assignment_id,
            run_id=assignment.run_id,
            version=wire.version_message(assignment.version),
            size=len(frame),
            sha256=hashlib.sha256(frame).hexdigest(),
            examples=examples_of(self.name),
        )
        self.frames[assignment.assignment_id] = (begin, frame)
        return frame

    def sent(self) -> list[Sent]:
        """What got a receipt so far."""
        return [
            Sent(begin=self.frames[r.assignment_id][0], frame=self.frames[r.assignment_id][1], receipt=r)
            for r, _ in self.receipts
            if r.assignment_id in self.frames
        ]


async def play(count: int, warm: Zygote, folder: Path, *, seed: int = 0) -> tuple[Found, Counter[str]]:
    """Send `count` replays around a run of three clients; what broke a promise, and how many there were of each way."""
    look_again_at_once()
    plan = Plan(rounds=ROUNDS, limit_s=300.0 + count / 5)
    folder.mkdir(parents=True)
    (folder / "task.py").write_text(TASK.format(inputs=plan.model.inputs, hidden=plan.model.hidden))
    save_file(plan.model.first(), folder / "first.safetensors")
    (folder / "run.toml").write_text(plan.config(folder).to_toml())
    found, done, may_end = Found(plan=plan), Counter[str](), asyncio.Event()
    address = f"127.0.0.1:{warm.ports.take()}"
    clients = [
        Keeping(
            name=f"site-{n}", schema=plan.model.schema, server=address, folder=folder / f"client-{n}", may_end=may_end
        )
        for n in range(plan.clients)
    ]
    coordinator = await _start(warm, folder, address)
    working = asyncio.create_task(run_all(clients))
    try:
        async with asyncio.timeout(plan.limit_s):
            await _held(clients, working)
            rng = random.Random(seed)
            await _replay(clients, address, count - count // 2, rng, found, done)
            await coordinator.kill()
            coordinator = await _start(warm, folder, address)
            await _replay(clients, address, count // 2, rng, found, done)
            may_end.set()
            await working
            if await coordinator.end():
                found.problems.append("the coordinator failed")
    except TimeoutError:
        found.problems.append(f"not over after {plan.limit_s:g} s")
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await coordinator.kill()
    if not found.problems:
        judge(found, clients, folder)
    return found, done


async def _start(warm: Zygote, folder: Path, address: str) -> Program:
    where = ["--out", str(folder / "runs"), "--address", address]
    return await warm.start(["server", str(folder / "run.toml"), *where], log=folder / "coordinator.log")


async def _held(clients: Sequence[Keeping], working: asyncio.Task[None]) -> None:
    """Wait until every client has receipts for all rounds but the last."""
    while any(len(client.sent()) < ROUNDS - 1 for client in clients):
        if working.done():
            await working
        await asyncio.sleep(0.02)


async def _replay(
    clients: Sequence[Keeping], address: str, count: int, rng: random.Random, found: Found, done: Counter[str]
) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = rpc.CoordinatorStub(channel)
        for _ in range(count):
            way, client = rng.choice(WAYS), rng.choice(clients)
            sent = rng.choice(client.sent())
            trouble = await _one(way, client, sent, rng.choice([c for c in clients if c is not client]), stub, rng)
            done[way] += 1
            if trouble:
                found.problems.append(f"{way}, assignment {sent.begin.assignment_id}: {trouble}")


async def _one(way: str, client: Keeping, sent: Sent, other: Keeping, stub: Any, rng: random.Random) -> str:
    """Replay one update in one way; what was wrong with the answer, or nothing."""
    if way == "same on stream":
        assert client.link is not None
        begin = pb.Begin(eager=True)
        begin.MergeFrom(sent.begin)
        try:
            again = await client.link.submit(begin, sent.frame, chunk_bytes=client.chunk_bytes)
        except RemoteError as error:
            return f"refused: {error}"
        return "" if again == sent.receipt else f"another receipt: {again}"
    if way == "same by call":
        answer = await _submitted(stub, client.name, sent.begin, sent.frame)
        return "" if answer == sent.receipt else f"got {answer}"
    if way == "other bytes":
        place = rng.randrange(len(sent.frame))
        frame = sent.frame[:place] + bytes([sent.frame[place] ^ 1 << rng.randrange(8)]) + sent.frame[place + 1 :]
        begin = pb.Begin()
        begin.MergeFrom(sent.begin)
        begin.sha256 = hashlib.sha256(frame).hexdigest()
        answer = await _submitted(stub, client.name, begin, frame)
        return "" if answer == "ALREADY_EXISTS" else f"got {answer}"
    if way == "another client":
        answer = await _submitted(stub, other.name, sent.begin, sent.frame)
        return "" if answer == "INVALID_ARGUMENT" else f"got {answer}"
    answer = await _submitted(stub, client.name, None, sent.frame)
    return "" if answer == "INVALID_ARGUMENT" else f"got {answer}"


async def _submitted(stub: Any, name: str, begin: pb.Begin | None, frame: bytes) -> pb.Receipt | str:
    """One Submit call, which without `begin` starts with bytes: the receipt, or the status it ended with. While a
    coordinator that came back does not know its clients yet, the call is made again."""
    while True:
        call = stub.Submit(metadata=((IDENTITY_KEY, name),), timeout=ANSWER_S, wait_for_ready=True)
        try:
            await call.write(pb.SubmitRequest(chunk=frame) if begin is None else pb.SubmitRequest(begin=begin))
            # The bytes go out when they are asked for: a refusal that crosses them can be lost on the way.
            while (reply := await call.read()) is not grpc.aio.EOF:
                if reply.WhichOneof("content") == "receipt":
                    call.cancel()
                    receipt: pb.Receipt = reply.receipt
                    return receipt
                await call.write(pb.SubmitRequest(chunk=frame))
            status: str = (await call.code()).name
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        except asyncio.InvalidStateError:
            # It ended while something was about to be written to it.
            status = (await call.code()).name
        # gRPC's own word for a write that crossed the answer and lost it.
        if status not in ("UNAUTHENTICATED", "UNAVAILABLE", "INTERNAL"):
            return status
        await asyncio.sleep(0.05)
