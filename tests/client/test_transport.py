"""The client's link against a coordinator that follows a script: breaks are resumed, refusals end it, nothing is lost."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import numpy as np
import pytest

from fedprune import wire
from fedprune.codec import encode_mask_set, encode_update
from fedprune.errors import RemoteError, UnavailableError
from fedprune.framing import seal
from fedprune.mask import Mask
from fedprune.parts import Part, PartKind
from fedprune.tensor import Schema, TensorSpec, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_client import patience, transport
from fedprune_client.replica import Replica
from fedprune_client.transport import Link

SCHEMA = Schema(tensors=(TensorSpec(name="w", shape=(50, 40)),))
WEIGHTS = {"w": np.arange(2000, dtype=np.float32).reshape(50, 40)}
FRAME = encode_update(WEIGHTS, schema=SCHEMA, mask=Mask.full(SCHEMA))
MASK = encode_mask_set(Mask.full(SCHEMA))
RECEIPT = pb.SubmitReply(receipt=pb.Receipt(assignment_id=1, verdict=pb.VERDICT_ACCEPTED))

Handler = Callable[[Any, Any], AsyncIterator[Any]]


class Script(rpc.CoordinatorServicer):
    """Each call is answered by the next handler of its list."""

    def __init__(self, *handlers: Handler) -> None:
        self.handlers = list(handlers)
        self.requests: list[Any] = []

    async def _next(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if not self.handlers:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the script is over")
        async for reply in self.handlers.pop(0)(request, context):
            yield reply

    async def Pull(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        async for reply in self._next(request, context):
            yield reply

    async def Submit(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for reply in self._next(request, context):
            yield reply

    async def Work(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for reply in self._next(request, context):
            yield reply

    async def Join(self, request: Any, context: Any) -> pb.JoinReply:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "client x: model differs at tensor 'w'")
        raise AssertionError

    async def Status(self, request: Any, context: Any) -> pb.StatusReply:
        raise AssertionError("no client asks")

    async def Stop(self, request: Any, context: Any) -> pb.StopReply:
        raise AssertionError("no client asks")

    async def Probe(self, request: Any, context: Any) -> pb.ProbeReply:
        raise AssertionError("no client asks")


@asynccontextmanager
async def linked(script: Script) -> AsyncIterator[tuple[Link, list[str]]]:
    server = grpc.aio.server()
    rpc.add_CoordinatorServicer_to_server(script, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    said: list[str] = []
    link = Link(f"127.0.0.1:{port}", "x", say=said.append)
    try:
        yield link, said
    finally:
        await link.close()
        await server.stop(None)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)


def header(kind: PartKind, data: bytes, number: int) -> pb.PullReply:
    part = Part(kind=kind, version=Version(), base=None, digest=seal(data).sha256, size=len(data))
    return pb.PullReply(header=wire.part_header(part, number=number, count=2))


async def pulled(link: Link) -> Replica:
    replica = Replica(schema=SCHEMA)

    async def apply(part: Part, data: memoryview) -> None:
        replica.apply(part, data)

    await link.pull("r", replica, Version(), apply)
    return replica


def begin(*, eager: bool = False) -> pb.Begin:
    return pb.Begin(assignment_id=1, run_id="r", size=len(FRAME), sha256=seal(FRAME).sha256, eager=eager)


class TestPull:
    async def test_a_broken_part_goes_on_where_it_broke(self) -> None:
        async def breaks(request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
            yield header(PartKind.MASK, MASK, 0)
            yield pb.PullReply(chunk=MASK)
            yield header(PartKind.MODEL, FRAME, 1)
            yield pb.PullReply(chunk=FRAME[:100])
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the cable")

        async def goes_on(request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
            yield header(PartKind.MODEL, FRAME, 1)
            start = request.offset if request.part_sha256 == seal(FRAME).sha256 else 0
            yield pb.PullReply(chunk=FRAME[start:])

        script = Script(breaks, goes_on)
        async with linked(script) as (link, said):
            replica = await pulled(link)
        assert np.array_equal(replica.weights["w"], WEIGHTS["w"])
        assert said == [
            f"pulling s0b0v0: {link.server}: no answer from the coordinator (got the cable); again in 0.0 s"
        ]
        assert (script.requests[1].offset, script.requests[1].part_sha256) == (100, seal(FRAME).sha256)

    async def test_a_stream_that_ends_early_is_asked_for_again(self) -> None:
        async def half(request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
            yield header(PartKind.MASK, MASK, 0)
            yield pb.PullReply(chunk=MASK)

        async def whole(request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
            async for reply in half(request, context):
                yield reply
            yield header(PartKind.MODEL, FRAME, 1)
            yield pb.PullReply(chunk=FRAME)

        async with linked(Script(half, whole)) as (link, said):
            assert (await pulled(link)).version == Version()
        assert "the transfer ended early" in said[0]

    @pytest.mark.parametrize(
        ("replies", "reason"),
        [
            ([pb.PullReply(chunk=b"abc")], "bytes before their announcement"),
            ([header(PartKind.MASK, MASK, 0), pb.PullReply(chunk=bytes(len(MASK)))], "digest does not match"),
            ([header(PartKind.MASK, MASK, 0), pb.PullReply(chunk=MASK + b"x")], "sent more bytes than announced"),
            ([header(PartKind.MODEL, bytes(1 << 20), 0)], "announced more bytes than allowed"),
            ([header(PartKind.MODEL, FRAME, 0), pb.PullReply(chunk=FRAME)], "a mask first"),
        ],
    )
    async def test_what_a_coordinator_must_not_send(self, replies: list[pb.PullReply], reason: str) -> None:
        async def wrong(request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
            for reply in replies:
                yield reply

        async with linked(Script(wrong)) as (link, _):
            with pytest.raises(RemoteError, match=reason):
                await pulled(link)


class TestSubmit:
    async def test_a_refusal_in_the_middle_ends_it_and_says_why(self) -> None:
        """While chunks are still being written: that must not look like a broken link, nor kill the client."""

        async def refuses(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            await anext(requests)
            yield pb.SubmitReply(offset=0)
            await anext(requests)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "client 3: sent more bytes than announced")

        # The refusal is lost where it crosses a chunk, and chunks of 20 bytes cross it four times in five: the same answer
        # comes again, here without a pause.
        async with linked(Script(*[refuses] * 400)) as (link, _):
            with pytest.raises(RemoteError, match="client 3: sent more bytes than announced"):
                await link.submit(begin(), FRAME, chunk_bytes=20)

    async def test_a_broken_upload_goes_on_at_the_offset(self) -> None:
        arrived = bytearray()

        async def takes(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            await anext(requests)
            yield pb.SubmitReply(offset=len(arrived))
            async for request in requests:
                arrived.extend(request.chunk)
                if len(arrived) == 300:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "the cable")
            yield RECEIPT

        async with linked(Script(takes, takes)) as (link, said):
            receipt = await link.submit(begin(), FRAME, chunk_bytes=100)
        assert receipt.verdict == pb.VERDICT_ACCEPTED
        assert bytes(arrived) == FRAME
        assert len(said) == 1

    async def test_an_upload_that_is_never_answered_is_asked_about_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport, "ANSWER_S", 1.0)
        arrived = bytearray()

        async def takes_all_and_says_nothing(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            await anext(requests)
            async for request in requests:
                arrived.extend(request.chunk)
            await asyncio.Event().wait()
            yield RECEIPT

        async def answers(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            await anext(requests)
            yield RECEIPT

        async with linked(Script(takes_all_and_says_nothing, *[answers] * 5)) as (link, said):
            receipt = await link.submit(begin(eager=True), FRAME, chunk_bytes=1 << 19)
        assert receipt.verdict == pb.VERDICT_ACCEPTED
        assert bytes(arrived) == FRAME
        assert "an upload is not answered (got 1 s); again in" in said[0]

    async def test_an_eager_upload_waits_for_nothing_but_its_repetition_does(self) -> None:
        seen: list[tuple[bool, int]] = []

        async def breaks(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            eager = (await anext(requests)).begin.eager
            seen.append((eager, len((await anext(requests)).chunk)))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the cable")
            yield RECEIPT

        async def answers(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            seen.append(((await anext(requests)).begin.eager, 0))
            yield RECEIPT

        async with linked(Script(breaks, answers)) as (link, _):
            await link.submit(begin(eager=True), FRAME, chunk_bytes=1 << 19)
        assert seen == [(True, len(FRAME)), (False, 0)]


class TestWork:
    async def test_a_message_that_comes_between_two_streams_goes_out_on_the_second(self) -> None:
        """The sender of a stream that has ended must not take it away."""
        heard: asyncio.Queue[pb.ClientMessage] = asyncio.Queue()
        ended = asyncio.Event()

        async def ends(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.CoordinatorMessage]:
            ended.set()
            for message in list[pb.CoordinatorMessage]():
                yield message

        async def listens(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.CoordinatorMessage]:
            heard.put_nowait(await anext(requests))
            yield pb.CoordinatorMessage(waiting=pb.Waiting(reason="thanks"))

        outgoing: asyncio.Queue[pb.ClientMessage] = asyncio.Queue()

        async def messages() -> AsyncIterator[pb.ClientMessage]:
            while True:
                yield await outgoing.get()

        async with linked(Script(ends, listens)) as (link, _):
            assert [message async for message in link.work(messages())] == []
            await ended.wait()
            failure = pb.ClientMessage(failure=pb.Failure(assignment_id=7, reason="no memory"))
            outgoing.put_nowait(failure)
            (told,) = [message async for message in link.work(messages())]
        assert heard.get_nowait() == failure
        assert told.waiting.reason == "thanks"

    async def test_a_broken_stream_may_be_opened_again_and_a_refused_one_not(self) -> None:
        def refusing(code: grpc.StatusCode) -> Handler:
            async def refuse(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
                await context.abort(code, "because")
                yield

            return refuse

        async def none() -> AsyncIterator[pb.ClientMessage]:
            await asyncio.Event().wait()
            yield pb.ClientMessage()

        script = Script(refusing(grpc.StatusCode.UNAVAILABLE), refusing(grpc.StatusCode.FAILED_PRECONDITION))
        async with linked(script) as (link, _):
            with pytest.raises(UnavailableError, match="because"):
                await anext(link.work(none()))
            with pytest.raises(RemoteError, match="because") as refused:
                await anext(link.work(none()))
        assert not isinstance(refused.value, UnavailableError)


async def test_a_refused_join_is_final() -> None:
    async with linked(Script()) as (link, said):
        with pytest.raises(RemoteError, match="model differs at tensor 'w'"):
            await link.join(pb.JoinRequest())
    assert said == []


async def test_a_coordinator_that_never_comes_is_given_up_on() -> None:
    said: list[str] = []
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened on
        link = Link(f"127.0.0.1:{nobody.getsockname()[1]}", "x", say=said.append, patience_s=2.0)
        with pytest.raises(UnavailableError, match=r"looked for the coordinator for 2 s and give up .*--patience-s 0"):
            await link.join(pb.JoinRequest())
        await link.close()
    assert said
    assert all(re.search(r"no answer from the coordinator.*; again in .* s, for [012] s more$", text) for text in said)


async def test_only_joining_knows_impatience() -> None:
    """An upload over a bad line may break for hours, and arrive."""
    breaks = 0

    async def breaking(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
        nonlocal breaks
        await anext(requests)
        breaks += 1
        if breaks < 5:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the cable")
        yield RECEIPT

    async with linked(Script(*[breaking] * 5)) as (link, said):
        link._patience_s = 1e-9
        await link.submit(begin(), FRAME, chunk_bytes=100)
    assert len(said) == 4


def one_step(data: bytes, base: Version) -> pb.CoordinatorMessage:
    part = Part(kind=PartKind.DELTA, version=Version(model=1), base=base, digest=seal(data).sha256, size=len(data))
    step = pb.Step(header=wire.part_header(part, number=0, count=1), data=data)
    return pb.CoordinatorMessage(assignment=pb.Assignment(steps=[step]))


@asynccontextmanager
async def at_work(link: Link) -> AsyncIterator[asyncio.Queue[pb.CoordinatorMessage]]:
    """A work stream that is read to its end; what came on it for the client."""
    heard: asyncio.Queue[pb.CoordinatorMessage] = asyncio.Queue()

    async def silence() -> AsyncIterator[pb.ClientMessage]:
        await asyncio.Event().wait()
        yield pb.ClientMessage()

    async def listen() -> None:
        try:
            async for message in link.work(silence()):
                heard.put_nowait(message)
        except UnavailableError:
            return

    listening = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


class TestSmall:
    """What is small travels on the work stream."""

    def answering(self, answer: pb.Answer | None, seen: list[pb.Result]) -> Handler:
        async def work(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.CoordinatorMessage]:
            yield pb.CoordinatorMessage(waiting=pb.Waiting(reason="ready"))
            seen.append((await anext(requests)).result)
            if answer is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the cable")
            yield pb.CoordinatorMessage(answer=answer)
            await asyncio.Event().wait()

        return work

    async def submitted(self, script: Script) -> tuple[pb.Receipt, list[str]]:
        async with linked(script) as (link, said), at_work(link) as heard:
            assert (await heard.get()).waiting.reason == "ready"
            link._most_small_bytes = len(FRAME)
            return await link.submit(begin(eager=True), FRAME, chunk_bytes=1 << 19), said

    async def test_a_result_and_its_receipt_need_no_call_of_their_own(self) -> None:
        seen: list[pb.Result] = []
        answer = pb.Answer(assignment_id=1, receipt=RECEIPT.receipt)
        receipt, said = await self.submitted(Script(self.answering(answer, seen)))
        assert receipt == RECEIPT.receipt
        assert [(r.begin.assignment_id, r.data) for r in seen] == [(1, FRAME)]
        assert said == []

    async def test_a_refusal_on_the_stream_is_final_and_says_why(self) -> None:
        refusal = pb.Refusal(status="INVALID_ARGUMENT", reason="client 3: update is not finite in tensor 'w'")
        with pytest.raises(RemoteError, match="client 3: update is not finite"):
            await self.submitted(Script(self.answering(pb.Answer(assignment_id=1, refusal=refusal), [])))

    @pytest.mark.parametrize(
        "answer", [None, pb.Answer(assignment_id=1, refusal=pb.Refusal(status="UNAVAILABLE", reason="no room"))]
    )
    async def test_where_the_stream_breaks_or_has_no_room_a_call_of_its_own_goes_on(
        self, answer: pb.Answer | None
    ) -> None:
        seen: list[pb.Result] = []
        asked: list[bool] = []

        async def takes(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            asked.append((await anext(requests)).begin.eager)
            yield RECEIPT

        receipt, _ = await self.submitted(Script(self.answering(answer, seen), takes))
        assert receipt == RECEIPT.receipt
        assert (len(seen), asked) == (1, [False])

    @pytest.mark.parametrize(("slow_s", "again"), [(-1.0, False), (60.0, True)])
    async def test_what_the_stream_has_not_carried_in_time_is_not_tried_on_it_again(
        self, monkeypatch: pytest.MonkeyPatch, slow_s: float, again: bool
    ) -> None:
        monkeypatch.setattr(transport, "SLOW_S", slow_s)
        seen: list[pb.Result] = []

        async def takes(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
            if (await anext(requests)).begin.eager:
                assert [request.chunk async for request in requests] == [FRAME]
            yield RECEIPT

        refusal = pb.Refusal(status="UNAVAILABLE", reason="no room")
        script = Script(self.answering(pb.Answer(assignment_id=1, refusal=refusal), seen), takes, takes)
        async with linked(script) as (link, _), at_work(link) as heard:
            assert (await heard.get()).waiting.reason == "ready"
            link._most_small_bytes = len(FRAME)
            for _ in range(1 if again else 2):
                assert await link.submit(begin(eager=True), FRAME, chunk_bytes=1 << 19) == RECEIPT.receipt
        assert len(seen) == 1
        assert (link._carried_bytes >= len(FRAME)) == again

    async def test_a_step_that_follows_what_is_held_makes_the_pull_unnecessary(self) -> None:
        moved = {"w": WEIGHTS["w"] + 1}
        mask = Mask.full(SCHEMA)
        delta = encode_update(moved, schema=SCHEMA, mask=mask, base=WEIGHTS, version=Version(model=1))

        async def work(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.CoordinatorMessage]:
            yield one_step(delta, Version())
            yield pb.CoordinatorMessage(waiting=pb.Waiting(reason="work"))
            await asyncio.Event().wait()

        replica = Replica(schema=SCHEMA, version=Version(), weights={"w": WEIGHTS["w"].copy()}, mask=mask)

        async def apply(part: Part, data: memoryview) -> None:
            replica.apply(part, data)

        script = Script(work)
        async with linked(script) as (link, _), at_work(link) as heard:
            await heard.get()
            await link.pull("r", replica, Version(model=1), apply)
        assert np.array_equal(replica.weights["w"], moved["w"])
        assert script.requests == []

    async def test_a_step_from_elsewhere_is_let_go_and_the_version_pulled(self) -> None:
        async def work(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.CoordinatorMessage]:
            yield one_step(b"of another version", Version(model=7))
            yield pb.CoordinatorMessage(waiting=pb.Waiting(reason="work"))
            await asyncio.Event().wait()

        async def whole(request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullReply]:
            yield header(PartKind.MASK, MASK, 0)
            yield pb.PullReply(chunk=MASK)
            yield header(PartKind.MODEL, FRAME, 1)
            yield pb.PullReply(chunk=FRAME)

        script = Script(work, whole)
        async with linked(script) as (link, _), at_work(link) as heard:
            await heard.get()
            replica = await pulled(link)
        assert np.array_equal(replica.weights["w"], WEIGHTS["w"])
        assert len(script.requests) == 1


class Answering:
    """A call whose answers come when the test says so."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        return

    async def write(self, request: Any) -> None:
        return

    async def read(self) -> Any:
        self.asked.set()
        return await self.answer

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    async def details(self) -> str:
        return "the coordinator says good-bye"

    async def trailing_metadata(self) -> tuple[()]:
        return ()

    def cancel(self) -> None:
        return


async def test_an_upload_whose_connection_is_put_away_goes_on_over_the_next_one() -> None:
    """Behind a renewed certificate the older connection is closed as soon as its work stream has ended."""
    begun = asyncio.Event()

    async def waits(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
        begun.set()
        await asyncio.Event().wait()
        yield RECEIPT

    async def answers(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[pb.SubmitReply]:
        yield RECEIPT

    # an answer whose call ends before it is read is lost, and asked for again
    async with linked(Script(waits, *[answers] * 20)) as (link, said):
        submitting = asyncio.create_task(link.submit(begin(), FRAME, chunk_bytes=1 << 16))
        await begun.wait()
        link._channels.present(None)
        await link._channels.retire()
        assert await submitting == RECEIPT.receipt
    assert any("the connection was closed" in line for line in said), said


def made_of(link: Link, *calls: Answering) -> None:
    """Uploads over `link` meet these calls, one after the other."""
    waiting, stub = iter(calls), cast(Any, link._channels.stub)
    stub.Submit = lambda **_: next(waiting)


def receipted() -> Answering:
    """A call whose answer is here."""
    call = Answering()
    call.answer.set_result(pb.SubmitReply(receipt=pb.Receipt(assignment_id=3)))
    return call


class Forgotten(Answering):
    """A call that is cancelled in the moment in which it begins: gRPC never comes back to who writes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()
        self.ended: list[Callable[[Any], object]] = []

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self.ended.append(callback)

    async def write(self, request: Any) -> None:
        if self.written.is_set():
            raise asyncio.InvalidStateError("RPC already finished.")
        self.written.set()
        await asyncio.Event().wait()

    async def read(self) -> Any:
        raise asyncio.CancelledError


@pytest.mark.parametrize("eager", [False, True])
async def test_a_call_that_is_put_away_in_the_moment_it_begins_is_made_again(
    monkeypatch: pytest.MonkeyPatch, eager: bool
) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.01)
    async with linked(Script()) as (link, said):
        forgotten = Forgotten()
        made_of(link, forgotten, receipted())
        submitting = asyncio.create_task(link.submit(begin(eager=eager), FRAME, chunk_bytes=1 << 16))
        await forgotten.written.wait()
        for callback in forgotten.ended:
            callback(forgotten)
        done, _ = await asyncio.wait({submitting}, timeout=60)
        assert done, said
        assert submitting.result().assignment_id == 3
        assert any("the connection was closed" in line for line in said)


async def test_a_call_that_takes_nothing_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(transport, "STALL_S", 0.05)
    async with linked(Script()) as (link, said):
        made_of(link, Forgotten(), receipted())
        submitting = asyncio.create_task(link.submit(begin(), FRAME, chunk_bytes=1 << 16))
        done, _ = await asyncio.wait({submitting}, timeout=60)
        assert done, said
        assert submitting.result().assignment_id == 3


async def test_who_is_cancelled_while_a_call_begins_does_not_try_again() -> None:
    async with linked(Script()) as (link, said):
        forgotten = Forgotten()
        made_of(link, forgotten)
        submitting = asyncio.create_task(link.submit(begin(), FRAME, chunk_bytes=1 << 16))
        await forgotten.written.wait()
        submitting.cancel()
        done, _ = await asyncio.wait({submitting}, timeout=60)
        assert done, said
        assert submitting.cancelled()


class Over(Answering):
    """A call that has ended before anything was written to it."""

    async def write(self, request: Any) -> None:
        raise asyncio.InvalidStateError("RPC already finished.")


async def test_a_call_that_ends_before_its_first_word_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.01)
    async with linked(Script()) as (link, said):
        over = Over()
        over.answer.set_result(grpc.aio.EOF)
        made_of(link, over, receipted())
        assert (await link.submit(begin(), FRAME, chunk_bytes=1 << 16)).assignment_id == 3
        assert any("the coordinator says good-bye" in line for line in said)


async def test_who_is_cancelled_in_the_moment_of_an_answer_does_not_try_again() -> None:
    async with linked(Script()) as (link, said):
        call = Answering()
        made_of(link, call)
        submitting = asyncio.create_task(link.submit(begin(), FRAME, chunk_bytes=1 << 16))
        await call.asked.wait()
        call.answer.set_result(grpc.aio.EOF)
        # It has come as far as whoever waits with a timeout of its own, and not yet as far as who submits.
        await asyncio.sleep(0)
        submitting.cancel()
        done, _ = await asyncio.wait({submitting}, timeout=60)
        assert done, said
        assert submitting.cancelled()
