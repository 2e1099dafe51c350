"""The gRPC shell: streams in, coordinator calls, streams out. Nothing is decided here.

Each handler reads who is calling, turns messages into values by `fedprune.wire`, and counts what it moved. All
work that takes long (disk, decoding) runs in threads; the event loop only shuffles messages, and folds models that are so
small that threads would take longer to take turns.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from fedprune import wire
from fedprune.errors import FedpruneError, RemoteError, StaleError, StoreError, UnavailableError
from fedprune.framing import FIRST_CHUNK_BYTES, MAX_CHUNK_BYTES, SMALLEST_CHUNK_BYTES, Chunks
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_server.audit import signed
from fedprune_server.coordinator import Coordinator
from fedprune_server.hearing import size_without, taken_content
from fedprune_server.intake import Intake
from fedprune_server.interceptors import caller
from fedprune_server.limits import Limits, messages
from fedprune_server.members import Member
from fedprune_server.probing import probed
from fedprune_server.run import Run
from fedprune_server.saying import Said

log = logging.getLogger("fedprune.service")

Context = Any  # grpc.aio.ServicerContext; its published type is generic in ways the generated base is not


async def pause(seconds: float) -> None:
    """Wait, where there is something to wait for: a turn of the event loop for nothing costs more than it looks."""
    if seconds > 0:
        await asyncio.sleep(seconds)


class CoordinatorService(rpc.CoordinatorServicer):
    """`fedprune.v1.Coordinator`, over one `Coordinator`."""

    def __init__(self, coordinator: Coordinator, limits: Limits) -> None:
        self._coordinator = coordinator
        self._limits = limits

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinReply:
        """Admit a client whose model is ours."""
        if not self._coordinator.members.knows(caller().identity):
            self._limits.check_client_count(len(self._coordinator.members), party=f"client {caller().identity}")
        with self._watching_store():
            try:
                reply = await self._coordinator.join(caller(), request)
            except RemoteError as error:
                self._coordinator.note("join refused", who=caller().party, peer=caller().peer, reason=str(error))
                raise
        member = self._coordinator.members.of(caller().identity)
        self._coordinator.count(member, up=request.ByteSize(), down=reply.ByteSize())
        return reply

    def _member(self) -> Member:
        """The client that calls; it may have more than one connection, when it has renewed its certificate."""
        member = self._coordinator.members.of(caller().identity)
        member.peers.add(caller().peer)
        return member

    def _creditworthy(self) -> Member:
        """The client that calls for a transfer. Raises `BusyError` when it owes too much, before anything is read."""
        member, run = self._member(), self._coordinator.run
        awaited = run is not None and run.awaits(member)
        self._limits.check_debt(member.identity, time.monotonic(), awaited=awaited)
        return member

    @contextmanager
    def _watching_store(self) -> Iterator[None]:
        """A disk that fails under one client's call has failed for all."""
        try:
            yield
        except StoreError:
            self._coordinator.look_at_store()
            raise

    async def Work(self, requests: AsyncIterator[pb.ClientMessage], context: Context) -> AsyncIterator[Any]:
        """The long-lived stream. It ends when either side closes it, or a newer one of the same client opens."""
        member = self._member()
        queue = self._coordinator.attach(member, caller().peer)
        listening = asyncio.create_task(self._listen(member, requests, queue))
        try:
            while (said := await queue.get()) is not None:
                data = said.encoded()
                self._coordinator.tell(member, said, len(data))
                yield data
            if member.queue not in (queue, None):
                raise StaleError(
                    "another client of this name has connected",
                    party=member.party,
                    next_step="Give each client its own --name, or its own state folder on one machine",
                )
        finally:
            listening.cancel()
            self._coordinator.detach(member, queue)

    async def _listen(
        self, member: Member, requests: AsyncIterator[pb.ClientMessage], queue: asyncio.Queue[Said | None]
    ) -> None:
        pace = messages()
        try:
            async for message in requests:
                content = taken_content(message)
                self._coordinator.hear(member, message, size_without(message, content))
                if message.WhichOneof("event") == "result":
                    answer = await self._answer(member, message.result.begin, content)
                    queue.put_nowait(Said(pb.CoordinatorMessage(answer=answer)))
                await pause(pace.take(1, time.monotonic()))
        finally:
            queue.put_nowait(None)

    async def _answer(self, member: Member, begin: pb.Begin, content: bytes) -> pb.Answer:
        """A result that came in one message, which is here already: it takes no room of the uploads. While it is checked,
        its client is not listened to."""
        assignment_id, count = begin.assignment_id, len(content)
        await pause(self._limits.owe_s(member.identity, count, time.monotonic()))
        try:
            with self._watching_store():
                run = self._coordinator.run_of(begin.run_id)
                receipt = await self._coordinator.take(run, member, begin, content, signed(caller(), begin))
        except FedpruneError as error:
            log.info("refused a result: %s", error, extra=member.names)
            return pb.Answer(assignment_id=assignment_id, refusal=pb.Refusal(status=error.status, reason=str(error)))
        self._limits.settle(member.identity, assignment_id)
        await pause(self._limits.pause_s(member.identity, count, time.monotonic()))
        run.at("receipt-sent")
        return pb.Answer(assignment_id=assignment_id, receipt=receipt)

    async def Pull(self, request: pb.PullRequest, context: Context) -> AsyncIterator[pb.PullReply]:
        """Send the parts that bring the caller from what it holds to what it wants."""
        member = self._creditworthy()
        run = self._coordinator.run_of(request.run_id)
        self._coordinator.count(member, up=request.ByteSize())
        parts = run.parts(wire.held_version(request), wire.version(request.want))
        # What came before the part that broke, the caller has: sent again, it would begin that part anew.
        broken = next((n for n, part in enumerate(parts) if part.digest == request.part_sha256), 0)
        for number, part in enumerate(parts[broken:], broken):
            again = part.digest == request.part_sha256
            resumed = request.offset if again else 0
            header = wire.part_header(part, number=number, count=len(parts))
            self._coordinator.count(member, down=header.ByteSize())
            yield pb.PullReply(header=header)
            run.at("pull-begun")
            data = run.store.blobs.open(part.digest)
            first = SMALLEST_CHUNK_BYTES if again else FIRST_CHUNK_BYTES
            most = run.config.network.most_chunk_bytes(encrypted=caller().encrypted)
            pieces, sent = Chunks(data, offset=resumed, first=first, most=most), resumed
            try:
                while chunk := pieces.take(time.monotonic()):
                    run.at("chunk-sent")
                    count, reply = len(chunk), [pb.PullReply(chunk=chunk)]
                    del chunk  # what is not read is held once, by who writes it
                    yield reply.pop()
                    sent += count
                    await pause(self._moved(run, member, count))
            finally:
                run.accounts.sent(member, part, data, start=resumed, end=sent)
        if parts:
            run.handed_out()

    async def Submit(self, requests: AsyncIterator[pb.SubmitRequest], context: Context) -> AsyncIterator[Any]:
        """One result: where to go on, then its bytes, then the receipt."""
        member = self._creditworthy()
        steady = self._steady(requests, member)
        with self._watching_store():
            first = await anext(steady, None)
            if first is None or first.WhichOneof("content") != "begin":
                raise RemoteError("a submission starts with what it is", party=member.party, expected="begin")
            run = self._coordinator.run_of(first.begin.run_id)
            intake = await run.intake.begin(member, first.begin, signed(caller(), first.begin))
            self._coordinator.count(member, up=first.begin.ByteSize())
            if intake.receipt is None:
                with self._limits.upload(caller().identity, first.begin.size):
                    yield pb.SubmitReply(offset=intake.offset)
                    position = 0 if first.begin.eager else intake.offset
                    async for request in steady:
                        chunk = request.chunk
                        del request  # a chunk is held once, and not while the next one is waited for
                        position, count = await self._append(run, intake, chunk, position), len(chunk)
                        del chunk
                        await pause(self._moved(run, member, count))
                    await run.intake.finish(intake)
            assert intake.receipt is not None
            self._coordinator.count(member, down=intake.receipt.ByteSize())
            self._limits.settle(member.identity, first.begin.assignment_id)
            run.at("receipt-sent")
            yield pb.SubmitReply(receipt=intake.receipt)

    async def _steady(
        self, requests: AsyncIterator[pb.SubmitRequest], member: Member
    ) -> AsyncIterator[pb.SubmitRequest]:
        """The messages of an upload as fast as is allowed, and broken off when there is no progress."""
        watchdog = self._limits.progress(time.monotonic())
        while True:
            try:
                async with asyncio.timeout(watchdog.deadline_s - time.monotonic()):
                    request = await anext(requests, None)
            except TimeoutError:
                raise UnavailableError("the upload makes no progress", party=member.party) from None
            if request is None:
                return
            came, count = [request], request.ByteSize()
            del request
            yield came.pop()
            await pause(self._limits.pause_s(member.identity, count, time.monotonic()))
            watchdog.heard(count, time.monotonic())

    def _moved(self, run: Run, member: Member, count: int) -> float:
        """The seconds until the next chunk may move. This one was a sign of life: behind it others may wait in the line."""
        member.last_seen = time.monotonic()
        return self._limits.owe_s(member.identity, count, time.monotonic(), awaited=run.awaits(member))

    async def _append(self, run: Run, intake: Intake, data: bytes, position: int) -> int:
        if not 0 < len(data) <= MAX_CHUNK_BYTES:
            raise RemoteError(
                "chunk size out of range", party=intake.member.party, seen=len(data), expected=f"1 to {MAX_CHUNK_BYTES}"
            )
        run.accounts.received_again(intake.member, min(len(data), max(0, intake.offset - position)))
        await run.intake.append(intake, position, data)
        return position + len(data)

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusReply:
        """What is going on."""
        return self._coordinator.status()

    async def Stop(self, request: pb.StopRequest, context: Context) -> pb.StopReply:
        """End the current run after what is committed."""
        return self._coordinator.stop(request.reason or f"asked by {caller().identity}", shutdown=request.shutdown)

    async def Probe(self, request: pb.ProbeRequest, context: Context) -> pb.ProbeReply:
        """Bytes there and back, at the pace that uploads have."""
        reply = probed(request, party=caller().party)
        moved = len(request.payload) + request.answer_bytes
        await pause(self._limits.pause_s(caller().identity, moved, time.monotonic()))
        return reply
