"""A client, carried out: the hands of `session.py`.

It keeps one work stream open, feeds what arrives there to the session's table, and does what the table asks for.
Training runs in a thread; pulling and submitting are tasks of the event loop; whatever they end with comes back as
an event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fedprune import __version__, wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION
from fedprune.errors import FedpruneError, UnavailableError
from fedprune.parts import Part
from fedprune.task import Shard, Task
from fedprune.tensor import Schema
from fedprune.torch import frozen_digest
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client import session
from fedprune_client.drawing import draw
from fedprune_client.outbox import Outbox
from fedprune_client.replica import Replica
from fedprune_client.reporting import StepReport
from fedprune_client.residual import ResidualFile
from fedprune_client.submitting import Submitting
from fedprune_client.training import Trainer
from fedprune_client.transport import Link
from fedprune_client.worker import Worker

log = logging.getLogger("fedprune.client")

Deed = Callable[[Assignment], Coroutine[Any, Any, session.Event]]

# After a broken stream clients come back within this time, not all at once.
REJOIN_S = 0.5
# The parts of a model up to here are applied sooner than a thread is woken.
LIGHT_BYTES = 1 << 18


@dataclass(slots=True, kw_only=True)
class Runner:
    """One client process at work. `data` is what the task sees as `shard.path`."""

    link: Link
    task: Task
    model: nn.Module
    schema: Schema
    data: Path
    outbox: Outbox
    residual: ResidualFile
    say: Callable[[str], None]
    # One thread touches model and replica, so that abandoned work cannot meet what follows it; clients that live in
    # one process share it, because torch's hooks and generators belong to the process.
    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "fedprune-work"))
    state: session.SessionState = field(default_factory=session.SessionState)
    ends: list[pb.RunEnd] = field(default_factory=list)
    _submitting: Submitting = field(init=False)
    _replica: Replica | None = None
    _trainer: Trainer | None = None
    _start: pb.Start | None = None
    _preparing: asyncio.Task[None] | None = None
    _doing: asyncio.Task[None] | None = None
    _in_hand: Future[Any] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _outgoing: asyncio.Queue[pb.ClientMessage] = field(default_factory=asyncio.Queue)
    _home: asyncio.Event = field(default_factory=asyncio.Event)
    _trouble: BaseException | None = None
    _heartbeat_s: float = 10.0

    def __post_init__(self) -> None:
        self._submitting = Submitting(link=self.link, outbox=self.outbox, residual=self.residual, say=self.say)

    async def run(self) -> None:
        """Work until the coordinator has no more runs. Raises what the client is refused for."""
        listening = asyncio.create_task(self._listen())
        home = asyncio.create_task(self._home.wait())
        await asyncio.wait({listening, home}, return_when=asyncio.FIRST_COMPLETED)
        self._abandon_work()
        for task in (listening, home, *([self._preparing] if self._preparing else [])):
            task.cancel()
        await asyncio.gather(home, return_exceptions=True)
        try:
            await listening
        except asyncio.CancelledError:
            pass
        finally:
            await self.link.close()
        if self._trouble is not None:
            raise self._trouble

    # the work stream ------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Join and keep a work stream open, for as long as it takes."""
        while not self._home.is_set():
            reply = await self.link.join(self._join_request())
            self._heartbeat_s = reply.heartbeat_s or self._heartbeat_s
            self.say(f"joined {self.link.server} as client {reply.client_index}")
            try:
                async for message in self.link.work(self._messages()):
                    self._hear(message)
            except UnavailableError as error:
                self.say(f"{error}; joining again")
            await asyncio.sleep(random.uniform(0, REJOIN_S))

    def _join_request(self) -> pb.JoinRequest:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return pb.JoinRequest(
            codec_version=CODEC_VERSION,
            package_version=__version__,
            tensors=wire.schema_message(self.schema),
            task_digest=self.task.digest,
            frozen_digest=frozen_digest(self.model),
            resources=pb.Resources(cores=os.cpu_count() or 1, memory_bytes=pages * page),
        )

    async def _messages(self) -> AsyncIterator[pb.ClientMessage]:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    message = await self._outgoing.get()
            except TimeoutError:
                message = pb.ClientMessage(heartbeat=pb.Heartbeat())
            yield message

    def _hear(self, message: pb.CoordinatorMessage) -> None:
        match message.WhichOneof("event"):
            case "start":
                self._start = message.start
                self._dispatch(session.Started(message.start.run_id))
            case "assignment":
                assignment = wire.assignment(message.assignment, party=self.link.server)
                sealed = self.outbox.get(assignment.run_id, assignment.assignment_id) is not None
                self._dispatch(session.Assigned(assignment, sealed))
            case "cancel":
                self._dispatch(session.Cancelled(message.cancel.assignment_id))
            case "run_end":
                self.say(f"run {message.run_end.run_id} {message.run_end.summary}")
                self.ends.append(message.run_end)
                self._dispatch(session.RunEnded(message.run_end.more))
            case "waiting":
                self.say(message.waiting.reason)

    def _dispatch(self, event: session.Event) -> None:
        self.state, effects = session.step(self.state, event)
        for effect in effects:
            HANDS[type(effect)](self, effect)

    # effects --------------------------------------------------------------------------------------------------

    def _prepare(self, effect: session.Prepare) -> None:
        assert self._start is not None
        self._replica = self._trainer = None
        self._preparing = asyncio.create_task(self._load(self._start))
        self._preparing.add_done_callback(self._done)

    async def _load(self, start: pb.Start) -> None:
        """Build what the run needs. A client whose own task fails here has nothing to offer: it goes home, and says why."""
        try:
            schema = self.schema.with_roles(wire.roles(start.roles, party=self.link.server))
            shard = Shard(index=start.shard.index, count=start.shard.count, path=self.data, seed=start.seed)
            load = partial(Trainer.load, self.task, self.model, schema, shard, start.held_out, start.fold)
            trainer = await self._in_worker(load)
            first = partial(draw, self.task, schema, seed=start.seed, sha256=start.first_sha256)
            replica = await self._in_worker(first)
        except FedpruneError as error:
            self._trouble = error
            self._home.set()
            return
        self.outbox.clear(keep_run=start.run_id)
        await self._submitting.submit_what_is_left(start.run_id)
        self._replica = replica
        self._trainer = trainer
        self.say(f"run {start.run_name}: shard {shard.index} of {shard.count}, {start.rounds} rounds")

    def _pull(self, effect: session.Pull) -> None:
        self._do(effect.assignment, self._pull_version)

    async def _pull_version(self, assignment: Assignment) -> session.Event:
        replica = await self._ready()

        async def apply(part: Part, data: memoryview) -> None:
            await self._in_worker(partial(replica.apply, part, data), light=self.schema.dense_bytes <= LIGHT_BYTES)

        await self.link.pull(assignment.run_id, replica, assignment.version, apply)
        return session.Pulled(assignment.version)

    async def _in_worker(self, work: Callable[[], Any], *, light: bool = False) -> Any:
        """Do it in the worker's thread; light work here and now, unless the thread has something of ours in hand: it may be
        abandoned and not yet at its end."""
        if light and (self._in_hand is None or self._in_hand.done()):
            return work()
        self._in_hand = self.worker.submit(work)
        return await asyncio.wrap_future(self._in_hand)

    def _work(self, effect: session.Work) -> None:
        self._do(effect.assignment, self._work_and_seal)

    async def _work_and_seal(self, assignment: Assignment) -> session.Event:
        replica = await self._ready()
        stop = self._stop = threading.Event()
        loop = asyncio.get_running_loop()
        report = StepReport(assignment.assignment_id, lambda m: loop.call_soon_threadsafe(self._outgoing.put_nowait, m))
        assert self._trainer is not None
        worker = Worker(trainer=self._trainer, replica=replica, outbox=self.outbox, residual=self.residual)
        await self._in_worker(partial(worker.do, assignment, report, stop.is_set))
        if stop.is_set():
            raise asyncio.CancelledError
        return session.Worked(assignment.assignment_id)

    def _submit(self, effect: session.Submit) -> None:
        self._do(effect.assignment, self._submit_sealed)

    async def _submit_sealed(self, assignment: Assignment) -> session.Event:
        await self._ready()
        accepted = await self._submitting.submit(assignment.run_id, assignment.assignment_id)
        return session.Receipted(assignment.assignment_id, accepted)

    def _settle(self, effect: session.Settle) -> None:
        self._submitting.settle(self.state.run_id, effect.assignment_id, accepted=effect.accepted)

    def _decline(self, effect: session.Decline) -> None:
        self.say(f"assignment {effect.assignment_id}: {effect.reason}")
        self._submitting.settle(self.state.run_id, effect.assignment_id, accepted=False)
        failure = pb.Failure(assignment_id=effect.assignment_id, reason=effect.reason)
        self._outgoing.put_nowait(pb.ClientMessage(failure=failure))

    def _abandon_work(self, effect: session.Abandon | None = None) -> None:
        self._stop.set()
        if self._doing is not None:
            self._doing.cancel()

    def _go_home(self, effect: session.GoHome) -> None:
        self._home.set()

    # doing ----------------------------------------------------------------------------------------------------

    async def _ready(self) -> Replica:
        """The replica, once the data of this run is loaded."""
        if self._preparing is not None:
            await asyncio.shield(self._preparing)
        if self._replica is None:
            raise asyncio.CancelledError
        return self._replica

    def _do(self, assignment: Assignment, work: Deed) -> None:
        self._doing = asyncio.create_task(self._attempt(assignment, work))
        self._doing.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """A bug must end the client loudly, not leave its coordinator waiting."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._trouble = error
            self._home.set()

    async def _attempt(self, assignment: Assignment, work: Deed) -> None:
        try:
            event = await work(assignment)
        except FedpruneError as error:
            log.debug("assignment %d failed", assignment.assignment_id, exc_info=error)
            event = session.Failed(assignment.assignment_id, str(error))
        self._dispatch(event)


HANDS: dict[type[session.Effect], Callable[[Runner, Any], None]] = {
    session.Prepare: Runner._prepare,
    session.Pull: Runner._pull,
    session.Work: Runner._work,
    session.Submit: Runner._submit,
    session.Settle: Runner._settle,
    session.Decline: Runner._decline,
    session.Abandon: Runner._abandon_work,
    session.GoHome: Runner._go_home,
}
