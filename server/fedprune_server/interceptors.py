"""What every call passes: who is calling, and which status an error becomes.

Identity is read here and nowhere else. Without TLS it is what the client claims in its metadata, which is why
plaintext is for loopback and test beds; handlers never see where it came from, so that a certificate can take its
place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from fedprune.errors import BusyError, FedpruneError, IdentityError, UnavailableError
from fedprune_server.limits import Limits

IDENTITY_KEY = "fedprune-identity"
RETRY_KEY = "fedprune-retry-after-s"
MAX_IDENTITY = 128
# Calls of other services (health) that need no identity.
OPEN_PREFIX = "/grpc.health.v1.Health/"

log = logging.getLogger("fedprune.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is calling: a stable `identity`, and the transport address `peer` of this connection."""

    identity: str
    peer: str


_caller: ContextVar[Caller] = ContextVar("fedprune_caller")


def caller() -> Caller:
    """Who made the call that is being handled."""
    return _caller.get()


def read_caller(context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
    """The caller of a call. Raises `IdentityError` when it does not say who it is."""
    metadata = dict(context.invocation_metadata() or ())
    claimed = metadata.get(IDENTITY_KEY, "")
    identity = claimed.decode("ascii", "replace") if isinstance(claimed, bytes) else claimed
    if not 0 < len(identity) <= MAX_IDENTITY or not identity.isprintable():
        raise IdentityError(
            "call without an identity",
            party=context.peer(),
            seen=repr(identity[:MAX_IDENTITY]),
            expected=f"1 to {MAX_IDENTITY} printable characters in metadata {IDENTITY_KEY!r}",
        )
    return Caller(identity=identity, peer=context.peer())


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], method: str, error: FedpruneError) -> None:
    log.info("refused %s: %s", method.rpartition("/")[2], error, extra={"peer": context.peer()})
    if isinstance(error, BusyError):
        context.set_trailing_metadata(((RETRY_KEY, f"{error.retry_after_s:g}"),))
    await context.abort(getattr(grpc.StatusCode, error.status), str(error))


# The published types of handlers describe the synchronous API; ours are coroutines and asynchronous generators.
Handler = Any


class Border(grpc.aio.ServerInterceptor):
    """Wraps every handler: identity in, limits held, `FedpruneError` out as its status."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: Any
    ) -> Handler:
        """Replace the handler of a call by one that sets the caller and maps errors."""
        details = handler_call_details
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN_PREFIX):
            return handler
        if handler.response_streaming:
            return _streaming(handler, details.method, self._limits)
        return _single(handler, details.method, self._limits)


async def _write(context: grpc.aio.ServicerContext[Any, Any], reply: Any, stall_s: float) -> None:
    """Hand out one message. Whoever does not read holds a connection, not us."""
    try:
        async with asyncio.timeout(stall_s):
            await context.write(reply)
    except TimeoutError:
        raise UnavailableError("does not read", party=caller().identity, seen=f"nothing for {stall_s:g} s") from None


def _single(handler: Handler, method: str, limits: Limits) -> Handler:
    inner = handler.unary_unary

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            _caller.set(read_caller(context))
            with limits.call(caller().identity):
                return await inner(request, context)
        except FedpruneError as error:
            await _refuse(context, method, error)

    return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


def _streaming(handler: Handler, method: str, limits: Limits) -> Handler:
    inner = handler.stream_stream if handler.request_streaming else handler.unary_stream

    async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            _caller.set(read_caller(context))
            with limits.call(caller().identity):
                async with contextlib.aclosing(inner(request, context)) as replies:
                    async for reply in replies:
                        await _write(context, reply, limits.network.stall_s)
        except FedpruneError as error:
            await _refuse(context, method, error)

    make = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
    return make(answer, handler.request_deserializer, handler.response_serializer)
