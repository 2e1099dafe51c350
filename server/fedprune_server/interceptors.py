"""What every call passes: who is calling, whether it may, and which status an error becomes.

Identity is read here and nowhere else. With TLS it is the hash of the caller's key (`admission.py`); without, it is
what the client claims in its metadata, which is why plaintext is for loopback and test beds. Handlers never see where
it came from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf import message

from fedprune.errors import BusyError, DecodeError, FedpruneError, IdentityError, UnavailableError
from fedprune.pki.subject import Role
from fedprune_server.leashes import Leashes
from fedprune_server.limits import Limits

IDENTITY_KEY = "fedprune-identity"
RETRY_KEY = "fedprune-retry-after-s"
MAX_IDENTITY = 128
# The health service; without TLS it needs no identity.
OPEN_PREFIX = "/grpc.health.v1.Health/"

log = logging.getLogger("fedprune.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who is calling: a stable `identity`, and the transport address `peer` of this connection.

    With TLS also the `name` and `role` of the certificate, the public key (SubjectPublicKeyInfo, DER) and the seconds
    until the certificate ends."""

    identity: str
    peer: str
    name: str = ""
    role: Role | None = None
    spki: bytes = b""
    longest_s: float | None = None

    @property
    def party(self) -> str:
        """How messages name it."""
        return self.name or self.identity


class Admission(Protocol):
    """Who may come in."""

    health_is_open: bool

    def admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """The caller of a call that it may make. Raises `FedpruneError` for everybody else."""


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


class Claimed:
    """Plaintext: everyone is who it says it is and may do everything. For loopback and trusted networks."""

    health_is_open = True

    def admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """The caller, as it claims."""
        return read_caller(context)


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], method: str, error: FedpruneError) -> None:
    log.info("refused %s: %s", method.rpartition("/")[2], error, extra={"peer": context.peer()})
    if isinstance(error, BusyError):
        context.set_trailing_metadata(((RETRY_KEY, f"{error.retry_after_s:g}"),))
    await context.abort(getattr(grpc.StatusCode, error.status), str(error))


# The published types of handlers describe the synchronous API; ours are coroutines and asynchronous generators.
Handler = Any


class Border(grpc.aio.ServerInterceptor):
    """Wraps every handler: identity in, messages parsed, limits held, `FedpruneError` out as its status."""

    def __init__(self, limits: Limits, admission: Admission | None = None) -> None:
        self.limits = limits
        self._admission = admission or Claimed()
        self.leashes = Leashes()

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]], handler_call_details: Any
    ) -> Handler:
        """Replace the handler of a call by one that sets the caller and maps errors."""
        details = handler_call_details
        handler = await continuation(details)
        if handler is None or (details.method.startswith(OPEN_PREFIX) and self._admission.health_is_open):
            return handler
        if handler.response_streaming:
            return self._streaming(handler, details.method)
        return self._single(handler, details.method)

    @contextlib.asynccontextmanager
    async def _entered(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
        """Somebody who may be here, for as long as it may, and not with too many calls."""
        who = self._admission.admit(method, context)
        _caller.set(who)
        with self.limits.call(who.identity):
            async with self.leashes.hold(who.identity, who.party, longest_s=who.longest_s):
                yield

    def _single(self, handler: Handler, method: str) -> Handler:
        inner, read = handler.unary_unary, handler.request_deserializer

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                async with self._entered(method, context):
                    return await inner(_parsed(request, read), context)
            except FedpruneError as error:
                await _refuse(context, method, error)

        return grpc.unary_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _streaming(self, handler: Handler, method: str) -> Handler:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
        read, stall_s = handler.request_deserializer, self.limits.network.stall_s

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            try:
                async with self._entered(method, context):
                    said = _each_parsed(context, read) if handler.request_streaming else _parsed(request, read)
                    async with contextlib.aclosing(inner(said, context)) as replies:
                        async for reply in replies:
                            await _write(context, reply, stall_s)
            except FedpruneError as error:
                await _refuse(context, method, error)

        make = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make(answer, None, handler.response_serializer)


async def _write(context: grpc.aio.ServicerContext[Any, Any], reply: Any, stall_s: float) -> None:
    """Hand out one message. Whoever does not read holds a connection, not us."""
    try:
        async with asyncio.timeout(stall_s):
            await context.write(reply)
    except TimeoutError:
        raise UnavailableError("does not read", party=caller().identity, seen=f"nothing for {stall_s:g} s") from None


def _parsed(data: Any, read: Callable[[bytes], Any] | None) -> Any:
    """The message. gRPC would answer bytes that are none with UNKNOWN, which says to try again."""
    try:
        return data if read is None else read(data)
    except message.DecodeError as error:
        raise DecodeError("not a message of this call", party=caller().identity, seen=f"{len(data)} bytes") from error


async def _each_parsed(
    context: grpc.aio.ServicerContext[Any, Any], read: Callable[[bytes], Any] | None
) -> AsyncIterator[Any]:
    """Message by message. Nothing is held on to while the next one is waited for: a thousand callers may be silent."""
    while (data := await context.read()) is not grpc.aio.EOF:
        parsed = _parsed(data, read)
        del data
        yield parsed
        del parsed
