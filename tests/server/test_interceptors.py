"""Identity in, status out: the one place where both are read and written."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from fedprune import errors
from fedprune.errors import FedpruneError, IdentityError
from fedprune_server.interceptors import IDENTITY_KEY, MAX_IDENTITY, Border, Caller, caller, read_caller


class Context:
    """As much of a call's context as the border looks at."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self.metadata = metadata
        self.aborted: tuple[grpc.StatusCode, str] | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:10.0.0.1:5000"

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.aborted = code, details


class Details:
    """What the interceptor is told of a call."""

    def __init__(self, method: str) -> None:
        self.method = method


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


async def handled(handler: Any, method: str = "/fedprune.v1.Coordinator/Status") -> Any:
    async def known(details: object) -> Any:
        return handler

    return await Border().intercept_service(known, Details(method))


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
    await handler.unary_unary(None, context)
    assert context.aborted == (grpc.StatusCode[kind.status], "site-1: no")


async def test_a_stream_is_refused_in_its_middle() -> None:
    async def one_then_no(requests: object, context: object) -> Any:
        yield caller().identity
        raise errors.StaleError("too late")

    handler = await handled(grpc.stream_stream_rpc_method_handler(one_then_no))
    context = Context(NAMED)
    assert [reply async for reply in handler.stream_stream(None, context)] == ["site-1"]
    assert context.aborted == (grpc.StatusCode.FAILED_PRECONDITION, "too late")


async def test_no_handler_runs_without_a_caller() -> None:
    async def never(requests: object, context: object) -> Any:
        raise AssertionError("it ran")
        yield

    handler = await handled(grpc.unary_stream_rpc_method_handler(never))
    context = Context()
    assert [reply async for reply in handler.unary_stream(None, context)] == []
    assert context.aborted is not None
    assert context.aborted[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_health_needs_no_name_and_an_unknown_method_no_wrapping() -> None:
    async def serving(request: object, context: object) -> str:
        return "serving"

    handler: Any = grpc.unary_unary_rpc_method_handler(serving)
    assert await handled(handler, "/grpc.health.v1.Health/Check") is handler
    assert await handled(None) is None
