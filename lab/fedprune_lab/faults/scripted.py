"""Clients that replay fixed updates: the product's transport, session, replica and outbox, without torch and training.

What a client sends in a round depends on its name, the round and the version it was given, and on nothing else, so
that an undisturbed run and one full of faults must end with the same model.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedprune import __version__, wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION, Plan, encode_update
from fedprune.errors import FedpruneError, RemoteError, UnavailableError
from fedprune.mask import Mask
from fedprune.parts import Part
from fedprune.tensor import Role, Schema
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.work import TrainWork
from fedprune_client import patience, troubles
from fedprune_client.outbox import Outbox
from fedprune_client.replica import Replica
from fedprune_client.transport import Link, begin_message

Arrays = Mapping[str, NDArray[np.generic]]


def changed(base: Arrays, mask: Mask, *, name: str, round_: int) -> dict[str, NDArray[np.generic]]:
    """The weights that this client has "trained" from `base` in this round."""
    found: dict[str, NDArray[np.generic]] = {}
    for tensor, array in base.items():
        seed = hashlib.sha256(f"{name}/{round_}/{tensor}".encode()).digest()[:8]
        noise = np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(array.shape, dtype=np.float32)
        moved = array.astype(np.float32) + np.float32(0.01) * noise
        if tensor in mask.alive:
            moved = np.where(mask.alive[tensor].reshape(array.shape), moved, np.float32(0.0))
        found[tensor] = moved
    return found


def examples_of(name: str) -> int:
    """How many examples this client says it has."""
    return 10 + int(hashlib.sha256(name.encode()).hexdigest(), 16) % 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How a client behaves: it works for `work_s`, and `declines` the rounds named."""

    work_s: float = 0.0
    declines: frozenset[int] = frozenset()


@dataclass(slots=True, kw_only=True)
class Scripted:
    """One client. `receipts` are the answers it was given, in order, each with the digest (hex) of what it was for;
    `trained` the assignments it worked on."""

    name: str
    schema: Schema
    server: str
    folder: Path
    mood: Callable[[int], Mood] = lambda round_: Mood()
    chunk_bytes: int = 4096
    receipts: list[tuple[pb.Receipt, str]] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    sealed_bytes: int = 0
    over: bool = False
    _doing: asyncio.Task[None] | None = None
    # What is being handed in; like the product, it is not given up for the next assignment.
    _handing_in: asyncio.Task[None] | None = None
    _in_hand: int = 0
    _work_group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _replica: Replica | None = None
    _outgoing: asyncio.Queue[pb.ClientMessage] = field(default_factory=asyncio.Queue)

    async def run(self) -> None:
        """Join, work, and come back after every break, until the last run is over."""
        link = Link(self.server, self.name, say=self.heard.append)
        try:
            async with self._work_group:
                while not self.over:
                    await link.join(self._join_request())
                    await self._attend(link)
                for task in (self._doing, self._handing_in):
                    if task is not None:
                        task.cancel()
        finally:
            await link.close()

    async def _attend(self, link: Link) -> None:
        try:
            async for message in link.work(self._messages()):
                self._hear(link, message)
                if self.over:
                    return
        except UnavailableError as error:
            self.heard.append(str(error))

    async def _messages(self) -> AsyncIterator[pb.ClientMessage]:
        while True:
            try:
                async with asyncio.timeout(1.0):
                    message = await self._outgoing.get()
            except TimeoutError:
                message = pb.ClientMessage(heartbeat=pb.Heartbeat())
            yield message

    def _join_request(self) -> pb.JoinRequest:
        return pb.JoinRequest(
            codec_version=CODEC_VERSION, package_version=__version__, tensors=wire.schema_message(self.schema)
        )

    def _hear(self, link: Link, message: pb.CoordinatorMessage) -> None:
        match message.WhichOneof("event"):
            case "start":
                roles: list[Role] = wire.roles(message.start.roles, party=self.server)
                if self._replica is None:
                    self._replica = Replica(schema=self.schema.with_roles(roles))
            case "assignment":
                self._take(link, wire.assignment(message.assignment, party=self.server))
            case "cancel" if message.cancel.assignment_id == self._in_hand:
                self._give_up()
            case "run_end":
                self.over = not message.run_end.more

    def _take(self, link: Link, assignment: Assignment) -> None:
        if any(receipt.assignment_id == assignment.assignment_id for receipt, _ in self.receipts):
            return
        if self._doing is not None and not self._doing.done():
            if self._in_hand == assignment.assignment_id:
                return
            self._give_up()
        self._in_hand = assignment.assignment_id
        self._doing = self._work_group.create_task(self._do_next(link, assignment))

    def _give_up(self) -> None:
        if self._doing is not None and self._doing is not self._handing_in:
            self._doing.cancel()

    async def _do_next(self, link: Link, assignment: Assignment) -> None:
        if self._handing_in is not None:
            await asyncio.wait({self._handing_in})
        await self._do(link, assignment)

    async def _do(self, link: Link, assignment: Assignment) -> None:
        outbox = Outbox(self.folder)
        mood = self.mood(assignment.round)
        if assignment.round in mood.declines and isinstance(assignment.work, TrainWork):
            self._decline(assignment, "not today")
            return
        try:
            if outbox.get(assignment.run_id, assignment.assignment_id) is None:
                await self._work(link, outbox, assignment, mood)
        except RemoteError as error:  # its round was closed before the version was here
            self.heard.append(str(error))
            self._decline(assignment, str(error))
            return
        sealed = outbox.get(assignment.run_id, assignment.assignment_id)
        assert sealed is not None
        result, frame = sealed
        begin = begin_message(result)
        begin.eager = False
        self._handing_in = asyncio.current_task()
        try:
            receipt = await link.submit(begin, frame, chunk_bytes=self.chunk_bytes)
            self.receipts.append((receipt, hashlib.sha256(frame).hexdigest()))
        except RemoteError as error:
            self.heard.append(str(error))
        finally:
            self._handing_in = None
        outbox.drop(assignment.run_id, assignment.assignment_id)

    def _decline(self, assignment: Assignment, reason: str) -> None:
        failure = pb.Failure(assignment_id=assignment.assignment_id, reason=reason)
        self._outgoing.put_nowait(pb.ClientMessage(failure=failure))

    async def _work(self, link: Link, outbox: Outbox, assignment: Assignment, mood: Mood) -> None:
        facts: dict[str, Any] = {
            "run_id": assignment.run_id,
            "assignment_id": assignment.assignment_id,
            "version": assignment.version,
        }
        if not isinstance(assignment.work, TrainWork):
            outbox.put(b"", examples=examples_of(self.name), metrics={"loss": 0.5}, **facts)
            return
        replica = self._replica
        assert replica is not None
        if replica.version != assignment.version:
            await self._pull(link, replica, assignment)
        self.trained.append(assignment.assignment_id)
        await asyncio.sleep(mood.work_s)
        frame = self._frame(replica, assignment)
        outbox.put(frame, examples=examples_of(self.name), **facts)
        self.sealed_bytes += len(frame)

    async def _pull(self, link: Link, replica: Replica, assignment: Assignment) -> None:
        async def apply(part: Part, data: memoryview) -> None:
            replica.apply(part, data)

        await link.pull(assignment.run_id, replica, assignment.version, apply)

    def _frame(self, replica: Replica, assignment: Assignment) -> bytes:
        assert replica.mask is not None
        weights = changed(replica.weights, replica.mask, name=self.name, round_=assignment.round)
        return encode_update(
            weights,
            schema=replica.schema,
            plan=Plan(values="lossless"),
            mask=replica.mask,
            base=replica.weights,
            version=assignment.version,
        )


def look_again_at_once() -> None:
    """Make the clients of this process impatient: what is tried is the coordinator."""
    patience.FIRST_DELAY_S, troubles.LONGEST_DELAY_S, patience.LONGEST_JOIN_DELAY_S = 0.05, 0.3, 0.3


async def run_all(clients: Sequence[Scripted]) -> None:
    """All of them, until the run is over for all; the first error ends them all."""
    try:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run())
    except* FedpruneError as errors:
        raise errors.exceptions[0] from None
