"""The process: who is here, which run is on, and the calls that the service passes in.

One coordinator serves one run after another with the clients that stay. It owns what outlives a run (members, their
connections, the socket meter) and builds a `Run` for what does not.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass, field
from functools import partial

from fedprune import __version__, wire
from fedprune.codec import CODEC_VERSION
from fedprune.errors import LimitError, StaleError, StoreError, UnavailableError, VersionError
from fedprune.tensor import Schema
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server import events
from fedprune_server.audit import Vouched, entry
from fedprune_server.interceptors import Caller
from fedprune_server.members import Member, Members
from fedprune_server.recovery import Resumption
from fedprune_server.run import Run
from fedprune_server.saying import Said

log = logging.getLogger("fedprune.coordinator")

Queue = asyncio.Queue[Said | None]


@dataclass(slots=True, kw_only=True)
class Coordinator:
    """What the service calls. `run` is None between two runs."""

    schema: Schema
    frozen_digest: str
    heartbeat_s: float
    members: Members = field(default_factory=Members)
    run: Run | None = None
    shutdown: bool = False
    _leaving: bool = False
    # When it was last looked for clients that are silent, and since when this process is awake.
    _looked_s: float = math.inf
    _awake_s: float = 0.0

    def begin(self, run: Run, resumed: Resumption | None) -> None:
        """Go on with another run and the clients that are here; their indices follow the run's own store."""
        self.run = run
        for member in sorted(self.members, key=lambda m: m.index):
            member.index = run.store.client_index(member.identity)
        if resumed is not None:
            run.resume(resumed.assigned)
        for member in self.members.connected:
            run.dispatch(events.Joined(member.index))

    def look_at_store(self) -> None:
        """A call has met an error of the store: if the store is done for, so is this process."""
        if self.run is not None:
            self.run.look_at_store()

    def hang_up(self) -> None:
        """End all work streams; the clients look for a coordinator until one is there again."""
        self._leaving = True
        for member in self.members.connected:
            if member.queue is not None:
                member.queue.put_nowait(None)

    async def join(self, caller: Caller, request: pb.JoinRequest) -> pb.JoinReply:
        """Admit a client. Raises `VersionError` for another codec, `SignatureError` for another model."""
        party = f"client {caller.party}"
        if request.codec_version != CODEC_VERSION:
            raise VersionError(
                "speaks another codec version",
                party=party,
                seen=f"{request.codec_version} (fedprune {request.package_version or 'unknown'})",
                expected=f"{CODEC_VERSION} (fedprune {__version__})",
                next_step="Install the same fedprune on both sides",
            )
        self.schema.check_same_model(wire.schema(request.tensors, party=party), party=party)
        run = self._running()
        index = await asyncio.to_thread(run.store.client_index, caller.identity)
        if run is not self.run:
            raise UnavailableError(
                "another run is on by now", party=party, next_step="The client tries again by itself"
            )
        newcomer = Member(
            index=index,
            identity=caller.identity,
            name=caller.name,
            task_digest=request.task_digest,
            frozen_digest=request.frozen_digest,
            last_seen=time.monotonic(),
        )
        known = self.members.knows(caller.identity)
        member = self.members.admit(newcomer, own_digest=self.frozen_digest)
        if not known:
            who = {"identity": caller.identity, "name": caller.name, "spki": caller.spki.hex()}
            self.keep("joined", client=index, peer=caller.peer, **who)
        log.info("joined", extra=member.names)
        return pb.JoinReply(
            client_index=index,
            coordinator_version=__version__,
            heartbeat_s=self.heartbeat_s,
            most_small_bytes=run.config.network.small_bytes,
        )

    def attach(self, member: Member, peer: str) -> Queue:
        """A client opened its work stream; an older stream of the same client ends."""
        queue: Queue = asyncio.Queue()
        if member.queue is not None:
            member.queue.put_nowait(None)
        member.queue, member.cut = queue, partial(self.cut, member, queue)
        member.peers.add(peer)
        member.holds = None
        member.last_seen = time.monotonic()
        if self._leaving:
            # It came between the good-bye and the closing of the port, which would wait for it as long as it may.
            queue.put_nowait(None)
        elif self.run is not None:
            self.run.dispatch(events.Joined(member.index))
        return queue

    def detach(self, member: Member, queue: Queue) -> None:
        """A work stream ended; it counts as leaving only when no newer one took its place."""
        if member.queue is not queue:
            return
        member.queue = None
        log.info("left", extra=member.names)
        if self.run is not None:
            self.run.accounts.sample_sockets()
            self.run.dispatch(events.Left(member.index))

    def cut(self, member: Member, queue: Queue) -> None:
        """Count a client as gone that is silent or does not read; its stream ends as soon as it can."""
        queue.put_nowait(None)
        self.detach(member, queue)

    def shun(self, identity: str) -> None:
        """A client was hung up on, because it was refused and came again at once: no round waits for it to come back."""
        if not self.members.knows(identity):
            return
        member = self.members.of(identity)
        if self.run is not None:
            self.run.dispatch(events.Declined(member.index, "hung up on: refused, and came again at once"))
        member.cut()

    def hear(self, member: Member, message: pb.ClientMessage, size: int) -> None:
        """A message on a client's work stream, of `size` bytes without the content of a result."""
        member.last_seen = time.monotonic()
        heard = message.WhichOneof("event")
        self.count(member, up=size, heartbeat=heard in ("heartbeat", "progress"))
        if heard == "progress":
            member.step, member.steps = message.progress.step, message.progress.steps
        elif heard == "failure" and self.run is not None:
            self.run.failed(member, message.failure.assignment_id, message.failure.reason[:MAX_REASON])

    def tell(self, member: Member, said: Said, size: int) -> None:
        """What is said leaves on a client's work stream, in `size` bytes."""
        heartbeat = said.message.WhichOneof("event") == "heartbeat"
        self.count(member, down=size - said.steps.size, heartbeat=heartbeat)
        if self.run is not None and said.steps.parts:
            for part, content in zip(said.steps.parts, said.steps.contents, strict=True):
                self.run.accounts.sent(member, part, memoryview(content), start=0, end=part.size)
            self.run.handed_out()

    @staticmethod
    async def take(run: Run, member: Member, begin: pb.Begin, data: bytes, signed: Vouched | None) -> pb.Receipt:
        """A small result on a client's work stream. Raises `RemoteError` when it cannot be accepted."""
        if len(data) > run.config.network.small_bytes:
            raise LimitError(
                "a result on the work stream is too large for it",
                party=member.party,
                seen=len(data),
                expected=f"at most {run.config.network.small_bytes}",
                next_step="Submit it",
            )
        return await run.intake.take(member, begin, data, signed)

    def count(self, member: Member, *, up: int = 0, down: int = 0, heartbeat: bool = False) -> None:
        """Account for a message."""
        if self.run is not None:
            self.run.accounts.control(member, up=up, down=down, heartbeat=heartbeat)

    def drop_silent(self) -> None:
        """Break off the work streams of clients that have said nothing for three heartbeats. To be called once in each:
        where that is late, this process was halted and could hear nobody, and silence begins anew."""
        now_s = time.monotonic()
        if now_s - self._looked_s > 2 * self.heartbeat_s:
            self._awake_s = now_s
        self._looked_s = now_s
        for member in self.members.connected:
            if max(member.last_seen, self._awake_s) < now_s - SILENT_HEARTBEATS * self.heartbeat_s:
                member.cut()

    def run_of(self, run_id: str) -> Run:
        """The current run, if it is this one. Raises `StaleError` when it is another; `UnavailableError` when there is
        none: a process that is about to end does not know what will become of the run."""
        run = self._running()
        if run.run_id != run_id:
            raise StaleError(
                "this run is over", seen=run_id, expected=run.run_id, next_step="Wait for the next assignment"
            )
        return run

    def facts(self) -> dict[str, object]:
        """Which run and round it is, for each line of the log."""
        return {"run": self.run.run_id, "round": self.run.state.round} if self.run is not None else {}

    def status(self) -> pb.StatusReply:
        """What is going on, for whoever asks."""
        clients = [
            pb.ClientStatus(
                client_index=m.index,
                identity=m.identity,
                name=m.name,
                connected=m.connected,
                state=m.state,
                step=m.step,
                steps=m.steps,
            )
            for m in self.members
        ]
        if self.run is None:
            return pb.StatusReply(state="between runs", clients=clients)
        run = self.run
        return pb.StatusReply(
            run_id=run.run_id,
            run_name=run.config.run.name,
            state=run.state.phase.value,
            round=run.state.round,
            rounds=run.config.run.rounds,
            waiting_for=run.waiting_for,
            version=wire.version_message(run.version),
            clients=clients,
        )

    async def settled(self) -> None:
        """Wait for the results that are being accepted."""
        if self.run is not None:
            await self.run.intake.idle()

    def note(self, what: str, **facts: object) -> None:
        """Something for the log and for the audit of the run."""
        log.info("%s: %s", what, ", ".join(f"{key} {value}" for key, value in facts.items() if key != "spki"))
        self.keep(what, **facts)

    def keep(self, what: str, **facts: object) -> None:
        """Something that the audit of the run keeps; between two runs nothing does."""
        if self.run is not None:
            try:
                self.run.store.append_audit(self.run.run_id, entry(what, **facts))
            except StoreError:
                self.look_at_store()

    def stop(self, reason: str, *, shutdown: bool) -> pb.StopReply:
        """End the current run after what is committed; with `shutdown`, the process too."""
        self.shutdown = self.shutdown or shutdown
        if self.run is None:
            return pb.StopReply(kept="no run is on")
        kept = f"run {self.run.run_id} at version {self.run.version}"
        self.run.dispatch(events.StopRequested(reason))
        return pb.StopReply(kept=kept)

    def _running(self) -> Run:
        if self.run is None:
            raise UnavailableError("no run is on yet", next_step="The client tries again by itself")
        return self.run


MAX_REASON = 500
SILENT_HEARTBEATS = 3
