"""What every call passes: who is calling, whether it may, and which status an error becomes.

Identity is read here and nowhere else. With TLS it is the hash of the caller's key (`admission.py`); without, it is
what the client claims in its metadata, which is why plaintext is for loopback and test beds. Handlers never see where
it came from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

import grpc
from google.protobuf import message

from fedprune.errors import BusyError, DecodeError, FedpruneError, IdentityError, UnavailableError
from fedprune.pki.subject import Role
from fedprune_server.leashes import Leashes, Newest
from fedprune_server.limits import Limits
from fedprune_server.nagging import Nags

IDENTITY_KEY = "fedprune-identity"
RETRY_KEY = "fedprune-retry-after-s"
MAX_IDENTITY = 128
# The health service; without TLS it needs no identity.
OPEN_PREFIX = "/grpc.health.v1.Health/"
# How long a message on its way may take when its call is cut.
CUT_S = 0.2
# Of these a client has one at a time, its newest: what breaks at its end may look whole at ours for a while.
TRANSFERS = frozenset({"/fedprune.v1.Coordinator/Pull", "/fedprune.v1.Coordinator/Submit"})

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

    @property
    def encrypted(self) -> bool:
        """Whether this connection has TLS: then it has shown a key."""
        return bool(self.spki)


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


# The published types of handlers describe the synchronous API; ours are coroutines and asynchronous generators.
Handler = Any


class Border(grpc.aio.ServerInterceptor):
    """Wraps every handler: identity in, messages parsed, limits held, `FedpruneError` out as its status."""

    def __init__(self, limits: Limits, admission: Admission | None = None) -> None:
        self.limits = limits
        self._admission = admission or Claimed()
        self.leashes = Leashes()
        self._newest = Newest()
        self._nags = Nags()
        # How a connection is ended: by gRPC's name for it, and the identity of who was let in over it or "".
        self.hang_up: Callable[[str, str], object] = lambda peer, identity: None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
    async def _entered(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Caller]:
        """Somebody who may be here, for as long as it may, and not with too many calls."""
        who = self._admission.admit(method, context)
        _caller.set(who)
        self.limits.check_debt(who.identity, time.monotonic())
        with self.limits.call(who.identity):
            async with contextlib.AsyncExitStack() as held:
                await held.enter_async_context(self.leashes.hold(who.identity, who.party, longest_s=who.longest_s))
                if method in TRANSFERS:
                    await held.enter_async_context(self._newest.hold(who.identity, method, who.party))
                await asyncio.sleep(self.limits.call_s(who.identity, time.monotonic()))
                yield who

    async def _refuse(self, context: grpc.aio.ServicerContext[Any, Any], method: str, error: FedpruneError) -> None:
        who, peer = _caller.get(None), context.peer()
        log.info("refused %s: %s", method.rpartition("/")[2], error, extra={"peer": peer})
        if self._nags.refused(who.identity if who else peer, error, time.monotonic()):
            if who is not None:
                self.limits.spend(who.identity, time.monotonic())
            self.hang_up(peer, who.identity if who else "")
        if isinstance(error, BusyError):
            context.set_trailing_metadata(((RETRY_KEY, f"{error.retry_after_s:g}"),))
        await context.abort(getattr(grpc.StatusCode, error.status), str(error))

    def _single(self, handler: Handler, method: str) -> Handler:
        inner, read = handler.unary_unary, handler.request_deserializer

        async def answer(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                async with self._entered(method, context) as who:
                    return await inner(_parsed(await self._only(who, context), read), context)
            except FedpruneError as error:
                await self._refuse(context, method, error)

        # On the wire it is the same; but gRPC would take a whole message in before it asked us whether it may.
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def _streaming(self, handler: Handler, method: str) -> Handler:
        inner = handler.stream_stream if handler.request_streaming else handler.unary_stream
        read, write, stall_s = handler.request_deserializer, handler.response_serializer, self.limits.network.stall_s

        async def answer(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            try:
                async with self._entered(method, context) as who:
                    several = handler.request_streaming
                    said = _each_parsed(context, read) if several else _parsed(await self._only(who, context), read)
                    send = _write_first
                    async with contextlib.aclosing(inner(said, context)) as replies:
                        async for reply in replies:
                            # what goes to many is in bytes already
                            data = reply if write is None or isinstance(reply, bytes) else write(reply)
                            del reply  # what is not read is held once, not twice
                            await send(context, data, stall_s)
                            send = _write
            except FedpruneError as error:
                await self._refuse(context, method, error)

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _only(self, who: Caller, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """The one message of a call. A client has one at a time on the way, and for so long: we hold what has come."""
        turn = self._turns.setdefault(who.identity, asyncio.Lock())
        try:
            async with asyncio.timeout(self.limits.network.stall_s), turn:
                data = await context.read()
        except TimeoutError:
            raise UnavailableError("says nothing", party=who.party) from None
        if data is grpc.aio.EOF:
            raise DecodeError("a call without a message", party=who.party)
        return data


async def _write(context: grpc.aio.ServicerContext[Any, Any], reply: Any, stall_s: float) -> None:
    """Hand out one message. Whoever does not read holds a connection, not us."""
    try:
        async with asyncio.timeout(stall_s):
            await context.write(reply)
    except TimeoutError:
        raise UnavailableError("does not read", party=caller().identity, seen=f"nothing for {stall_s:g} s") from None


async def _write_first(context: grpc.aio.ServicerContext[Any, Any], reply: Any, stall_s: float) -> None:
    """Hand out the first message of a call. gRPC that is cut off in it cannot say a status any more, and the caller
    would wait for ever."""
    writing = asyncio.ensure_future(_write(context, reply, stall_s))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing}, timeout=CUT_S)
        raise
    finally:
        writing.cancel()


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
        parsed = [_parsed(data, read)]
        del data
        yield parsed.pop()
