"""Identity in, status out: the one place where both are read and written."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import grpc
import pytest

from fedprune import errors
from fedprune.errors import FedpruneError, IdentityError
from fedprune.network_section import NetworkSection
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_server.interceptors import IDENTITY_KEY, MAX_IDENTITY, RETRY_KEY, Border, Caller, caller, read_caller
from fedprune_server.limits import Limits
from fedprune_server.nagging import REFUSALS_AT_ONCE


class Context:
    """As much of a call's context as the border looks at."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self.metadata = metadata
        self.replies: list[object] = []
        self.trailing: object = None
        self.aborted: tuple[grpc.StatusCode, str] | None = None
        self.coming: list[bytes] = [b""]

    async def read(self) -> Any:
        return self.coming.pop(0) if self.coming else grpc.aio.EOF

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:10.0.0.1:5000"

    async def write(self, reply: object) -> None:
        self.replies.append(reply)

    def set_trailing_metadata(self, metadata: object) -> None:
        self.trailing = metadata

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted = code, details


class Details:
    """What the interceptor is told of a call."""

    def __init__(self, method: str) -> None:
        self.method = method


NETWORK = NetworkSection()
NAMED = (IDENTITY_KEY, "site-1")


def read(*metadata: tuple[str, str | bytes]) -> Caller:
    context: Any = Context(*metadata)
    return read_caller(context)


def test_the_caller_is_who_it_says_over_this_connection() -> None:
    assert read(("other", "x"), NAMED) == Caller(identity="site-1", peer="ipv4:10.0.0.1:5000")
    assert read((IDENTITY_KEY, b"site-2")).identity == "site-2"


@pytest.mark.parametrize("identity", ["", "a\nb", "\x07", "x" * (MAX_IDENTITY + 1)])
def test_a_call_without_a_name_is_refused(identity: str) -> None:
    with pytest.raises(IdentityError, match=r"ipv4:10.0.0.1:5000: call without an identity .*expected 1 to 128"):
        read((IDENTITY_KEY, identity))


def test_a_call_without_metadata_is_refused() -> None:
    with pytest.raises(IdentityError):
        read()


async def handled(
    handler: Any, method: str = "/fedprune.v1.Coordinator/Status", network: NetworkSection = NETWORK
) -> Any:
    async def known(details: object) -> Any:
        return handler

    return await Border(Limits(network)).intercept_service(known, Details(method))


def every_error() -> list[type[FedpruneError]]:
    found, todo = [], [FedpruneError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
async def test_every_error_has_its_status(kind: type[FedpruneError]) -> None:
    async def refuse(request: object, context: object) -> None:
        raise kind("no", party=caller().identity)

    handler = await handled(grpc.unary_unary_rpc_method_handler(refuse))
    context = Context(NAMED)
    await handler.stream_unary(None, context)
    assert context.aborted == (grpc.StatusCode[kind.status], "site-1: no")


async def test_a_stream_is_refused_in_its_middle() -> None:
    async def one_then_no(requests: object, context: object) -> Any:
        yield caller().identity
        raise errors.StaleError("too late")

    handler = await handled(grpc.stream_stream_rpc_method_handler(one_then_no))
    context = Context(NAMED)
    await handler.stream_stream(None, context)
    assert context.replies == ["site-1"]
    assert context.aborted == (grpc.StatusCode.FAILED_PRECONDITION, "too late")


async def test_no_handler_runs_without_a_caller() -> None:
    async def never(requests: object, context: object) -> Any:
        raise AssertionError("it ran")
        yield

    handler = await handled(grpc.unary_stream_rpc_method_handler(never))
    context = Context()
    await handler.stream_stream(None, context)
    assert context.replies == []
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_health_needs_no_name_and_an_unknown_method_no_wrapping() -> None:
    async def serving(request: object, context: object) -> str:
        return "serving"

    handler: Any = grpc.unary_unary_rpc_method_handler(serving)
    assert await handled(handler, "/grpc.health.v1.Health/Check") is handler
    assert await handled(None) is None


async def test_bytes_that_are_no_message_are_refused_for_good() -> None:
    """UNKNOWN, as gRPC says by itself, would have the client try again for ever."""

    async def never(request: object, context: object) -> None:
        raise AssertionError("it ran")

    handler = await handled(grpc.unary_unary_rpc_method_handler(never, pb.JoinRequest.FromString))
    context = Context(NAMED)
    context.coming = [b"\xff\xff"]
    await handler.stream_unary(None, context)
    assert context.aborted == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "site-1: not a message of this call (got 2 bytes)",
    )


async def test_nor_in_the_middle_of_a_stream() -> None:
    async def echo(requests: Any, context: object) -> Any:
        async for request in requests:
            yield request.WhichOneof("event")

    handler = await handled(grpc.stream_stream_rpc_method_handler(echo, pb.ClientMessage.FromString))
    context = Context(NAMED)
    context.coming = [pb.ClientMessage(heartbeat=pb.Heartbeat()).SerializeToString(), b"\xff\xff"]
    await handler.stream_stream(None, context)
    assert context.replies == ["heartbeat"]
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_no_message_is_held_on_to_while_the_next_one_is_waited_for() -> None:
    class Large:
        """A message, or what it says, that can be watched."""

    watched: list[weakref.ref[Large]] = []
    held: list[int] = []

    class Slow(Context):
        async def read(self) -> Any:
            held.append(sum(seen() is not None for seen in watched))
            if len(held) == 3:
                return grpc.aio.EOF
            data = Large()
            watched.append(weakref.ref(data))
            return data

    def parse(data: Any) -> Any:
        said = Large()
        watched.append(weakref.ref(said))
        return said

    async def take(requests: Any, context: object) -> Any:
        async for request in requests:
            del request
            yield "one"

    handler = await handled(grpc.stream_stream_rpc_method_handler(take, parse))
    await handler.stream_stream(None, Slow(NAMED))
    assert (len(watched), held) == (4, [0, 0, 0])


async def test_one_call_too_many_is_told_when_to_come_again() -> None:
    async def nested(request: object, context: object) -> None:
        await handler.stream_unary(None, inner)

    inner, outer = Context(NAMED), Context(NAMED)
    handler: Any = await handled(
        grpc.unary_unary_rpc_method_handler(nested), network=NetworkSection(max_client_calls=1)
    )
    await handler.stream_unary(None, outer)
    assert outer.aborted is None
    assert inner.aborted is not None
    assert inner.aborted[0] is grpc.StatusCode.UNAVAILABLE
    assert inner.trailing == ((RETRY_KEY, "2"),)


@pytest.mark.parametrize(("metadata", "identity"), [((NAMED,), "site-1"), ((), "")])
async def test_who_is_refused_and_comes_again_at_once_is_hung_up_on(
    metadata: tuple[tuple[str, str], ...], identity: str
) -> None:
    """By its identity where it may be here, by its connection where it may not."""

    async def no_room(request: object, context: object) -> None:
        raise errors.BusyError("no room")

    async def known(details: object) -> Any:
        return grpc.unary_unary_rpc_method_handler(no_room)

    hung: list[tuple[str, str]] = []
    border = Border(Limits(NETWORK))
    border.hang_up = lambda peer, identity: hung.append((peer, identity))
    handler: Any = await border.intercept_service(known, Details("/fedprune.v1.Coordinator/Status"))
    for _ in range(int(REFUSALS_AT_ONCE) + 1):
        assert hung == []
        context = Context(*metadata)
        await handler.stream_unary(None, context)
        assert context.aborted is not None
    assert hung == [("ipv4:10.0.0.1:5000", identity)]


async def test_nothing_is_read_of_a_call_that_may_not_come_in() -> None:
    """gRPC itself would have taken in the whole message before it asked."""

    class Unread(Context):
        async def read(self) -> Any:
            raise AssertionError("it was read")

    async def never(request: object, context: object) -> None:
        raise AssertionError("it ran")

    handler = await handled(grpc.unary_unary_rpc_method_handler(never))
    context = Unread()
    await handler.stream_unary(None, context)
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_has_one_message_of_such_calls_on_the_way() -> None:
    class Slow(Context):
        reading = most = 0

        async def read(self) -> Any:
            Slow.reading += 1
            Slow.most = max(Slow.most, Slow.reading)
            await asyncio.sleep(0)
            Slow.reading -= 1
            return b""

    async def answer(request: object, context: object) -> str:
        return "yes"

    handler = await handled(grpc.unary_unary_rpc_method_handler(answer))
    answers = await asyncio.gather(*(handler.stream_unary(None, Slow(NAMED)) for _ in range(4)))
    assert (answers, Slow.most) == (["yes"] * 4, 1)


async def test_a_call_without_its_message_is_refused() -> None:
    async def never(request: object, context: object) -> None:
        raise AssertionError("it ran")

    handler = await handled(grpc.unary_unary_rpc_method_handler(never))
    context = Context(NAMED)
    context.coming = []
    await handler.stream_unary(None, context)
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_first_message_of_a_call_that_is_cut_still_goes_out() -> None:
    """Else gRPC sends no status after it, and the caller waits until its deadline."""
    began, border = asyncio.Event(), Border(Limits(NETWORK))

    class Slow(Context):
        async def write(self, reply: object) -> None:
            began.set()
            for _ in range(10):
                await asyncio.sleep(0)
            await super().write(reply)

    async def offset(requests: object, context: object) -> Any:
        yield "offset"
        await asyncio.Event().wait()

    async def known(details: object) -> Any:
        return grpc.stream_stream_rpc_method_handler(offset)

    handler: Any = await border.intercept_service(known, Details("/fedprune.v1.Coordinator/Submit"))
    older = Slow(NAMED)
    calls = [asyncio.create_task(handler.stream_stream(None, older))]
    await began.wait()
    calls.append(asyncio.create_task(handler.stream_stream(None, Context(NAMED))))
    await calls[0]
    assert older.replies == ["offset"]
    assert older.aborted == (grpc.StatusCode.UNAVAILABLE, "site-1: goes on over another call")
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
