"""The client's side of the wire: one channel, retried and resumed until it works or is refused for good.

Only two things can come out of a call: what was asked for, or a `FedpruneError` that trying again cannot mend. A
coordinator that is not there yet, a cut cable, a coordinator that restarts: all of that is waited out with full
jitter, and what is being waited for is said. A coordinator that does not come back at all, because its last run ended
while we were away, is looked for as long as the client was told to.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import grpc

from fedprune import wire
from fedprune.errors import RemoteError, UnavailableError
from fedprune.framing import FIRST_CHUNK_BYTES, MAX_CHUNK_BYTES, SLOW_S, SMALLEST_CHUNK_BYTES, Chunks
from fedprune.pki.credentials import Credentials
from fedprune.tensor import Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import enrolment_pb2 as certificates
from fedprune_client import patience
from fedprune_client.channels import Channels
from fedprune_client.download import Apply, Download
from fedprune_client.outbox import Result
from fedprune_client.replica import Replica
from fedprune_client.stream import WorkStream
from fedprune_client.troubles import PASSING_NAMES, as_error, status

IDENTITY_KEY = "fedprune-identity"
CONTROL_TIMEOUT_S = 10.0
# A transfer that makes no progress for this long is broken off and resumed.
STALL_S = 30.0
# A result is checked and synced before its receipt goes out; who is slower gets twice as long next time, four times.
ANSWER_S, MOST_DOUBLED = 60.0, 4
# Up to here an upload goes out with its announcement, without waiting to be told where to begin.
EAGER_BYTES = 1 << 19


class Link:
    """The connection of one client, under one identity. `patience_s` is how long a coordinator that cannot be joined
    is looked for; 0 is for ever."""

    def __init__(
        self,
        server: str,
        identity: str,
        *,
        say: Callable[[str], None],
        credentials: Credentials | None = None,
        patience_s: float = 0.0,
    ) -> None:
        self.server = server
        self._patience_s = patience_s
        self._patience = patience.Patience(server, say)
        self._stream = WorkStream(server)
        self._most_small_bytes = 0
        # What has been found out: the line did not carry more in one message in time.
        self._carried_bytes = MAX_CHUNK_BYTES
        self._identity = ((IDENTITY_KEY, identity),)
        self._channels = Channels(server, credentials)

    def present(self, credentials: Credentials) -> None:
        """Make calls with these credentials from now on; what is under way goes on as it began."""
        self._channels.present(credentials)

    async def close(self) -> None:
        """Hang up."""
        await self._channels.close()

    async def renew(self, request_pem: bytes) -> certificates.Certificates:
        """Ask once for a certificate. Raises `UnavailableError` when trying again may help."""
        ask: Any = self._channels.renewal.Renew
        try:
            request = certificates.RenewRequest(request_pem=request_pem)
            reply: certificates.Certificates = await ask(request, timeout=CONTROL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise as_error(error, self.server) from error
        return reply

    async def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """Join, waiting for a coordinator that is not there. Raises what it refuses us for, and `UnavailableError` when
        patience is at its end."""

        async def call() -> pb.JoinReply:
            reply: pb.JoinReply = await self._channels.stub.Join(
                request, metadata=self._identity, timeout=CONTROL_TIMEOUT_S
            )
            return reply

        reply = await self._patience.until_done(
            "joining", call, longest_s=patience.LONGEST_JOIN_DELAY_S, patience_s=self._patience_s
        )
        self._most_small_bytes = reply.most_small_bytes
        self._patience.wake()
        return reply

    async def work(self, outgoing: AsyncIterator[pb.ClientMessage]) -> AsyncIterator[pb.CoordinatorMessage]:
        """One work stream, until it breaks or ends; raises `UnavailableError` when it breaks."""
        messages = self._stream.run(self._channels.stub.Work(metadata=self._identity), outgoing)
        try:
            async with aclosing(messages):
                async for message in messages:
                    yield message
        finally:
            await self._channels.retire()

    async def pull(self, run_id: str, replica: Replica, want: Version, apply: Apply) -> None:
        """Bring the replica to `want` by `apply`, continuing after each break where it broke."""
        progress = Download(run_id, replica, want, apply)
        for step in self._stream.take_steps():
            await progress.take_step(step, self.server)
        if replica.version != want:
            await self._patience.until_done(f"pulling {want}", lambda: self._pull_once(progress))

    async def _pull_once(self, progress: Download) -> None:
        call: Any = self._channels.stub.Pull(progress.request(), metadata=self._identity)
        try:
            while (reply := await _read(call, within_s=STALL_S)) is not grpc.aio.EOF:
                await progress.take(reply, self.server)
        except TimeoutError:
            raise UnavailableError("the coordinator sends nothing", party=self.server, seen=f"{STALL_S:g} s") from None
        finally:
            call.cancel()
        progress.check_complete(self.server)

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int) -> pb.Receipt:
        """Send one sealed result until it has its receipt: on the work stream if it is small, else or if that breaks by a
        call of its own, in chunks of at most `chunk_bytes`, that begin smaller after each break: on a slow link a large
        one may never arrive in time."""
        self._channels.sign(begin)
        if begin.eager and begin.size <= min(self._most_small_bytes, self._carried_bytes):
            began_s = time.monotonic()
            answer = await self._submit_small(begin, frame)
            if answer is not None:
                return answer
            if time.monotonic() - began_s > SLOW_S:
                self._carried_bytes = begin.size // 2
            begin.eager = False
        tries = itertools.count()

        async def call() -> pb.Receipt:
            try:
                breaks = next(tries)
                first = max(FIRST_CHUNK_BYTES >> breaks, SMALLEST_CHUNK_BYTES)
                pieces = partial(Chunks, frame, first=first, most=chunk_bytes)
                return await self._submit_once(begin, pieces, ANSWER_S * 2 ** min(breaks, MOST_DOUBLED))
            finally:
                # A refusal that crosses our bytes is lost on the way; the next time it is waited for, as is the offset.
                begin.eager = False

        return await self._patience.until_done(f"submitting assignment {begin.assignment_id}", call)

    async def _submit_small(self, begin: pb.Begin, frame: bytes) -> pb.Receipt | None:
        """The receipt of a result that is sent in one message; None where another try may help. Raises the refusal."""
        answer = await self._stream.ask(begin, frame, within_s=STALL_S)
        if answer is None:
            return None
        if answer.WhichOneof("content") == "receipt":
            return answer.receipt
        if answer.refusal.status in PASSING_NAMES:
            return None
        raise RemoteError(answer.refusal.reason or "refused without a reason", party=self.server)

    async def _submit_once(self, begin: pb.Begin, pieces: Callable[..., Chunks], answer_s: float) -> pb.Receipt:
        call: Any = self._channels.stub.Submit(metadata=self._identity)
        try:
            # A call that has ended before its first word says why when it is read.
            with suppress(asyncio.InvalidStateError):
                await _write_first(call, pb.SubmitRequest(begin=begin))
            if begin.eager:
                await self._send(call, pieces())
            reply = await self._reply(call, within_s=answer_s)
            if reply.WhichOneof("content") == "offset":
                if not begin.eager:
                    await self._send(call, pieces(offset=reply.offset))
                reply = await self._reply(call, within_s=answer_s)
        finally:
            call.cancel()
        if reply.WhichOneof("content") != "receipt":
            raise RemoteError("an upload was not answered by a receipt", party=self.server)
        return reply.receipt

    @staticmethod
    async def _send(call: Any, pieces: Chunks) -> None:
        """Send until all is sent, or the coordinator has ended the call: what it said is read next."""
        try:
            while chunk := pieces.take(time.monotonic()):
                # A write that crosses the end of the call hides why it ended: what has come is heard first.
                await asyncio.sleep(0)
                async with asyncio.timeout(STALL_S):
                    await call.write(pb.SubmitRequest(chunk=chunk))
            await call.done_writing()
        except asyncio.InvalidStateError:
            return

    async def _reply(self, call: Any, *, within_s: float) -> pb.SubmitReply:
        try:
            reply = await _read(call, within_s=within_s)
        except TimeoutError:
            raise UnavailableError("an upload is not answered", party=self.server, seen=f"{within_s:g} s") from None
        if reply is grpc.aio.EOF:
            raise as_error(await status(call), self.server)
        answer: pb.SubmitReply = reply
        return answer


async def _write_first(call: Any, message: pb.SubmitRequest) -> None:
    """The first word of a call, unless the call ends before it or takes nothing in time: what is read next says why. Where a
    connection is closed in the moment in which a call begins on it, gRPC lets who writes wait for ever."""
    ended = asyncio.get_running_loop().create_future()
    call.add_done_callback(lambda _: ended.cancel())
    writing = asyncio.ensure_future(call.write(message))
    try:
        await asyncio.wait({writing, ended}, timeout=STALL_S, return_when=asyncio.FIRST_COMPLETED)
        if writing.done():
            await writing
    finally:
        writing.cancel()


async def _read(call: Any, *, within_s: float) -> Any:
    """The next message of a call; raises `TimeoutError`."""
    async with asyncio.timeout(within_s):
        return await call.read()


def begin_message(result: Result) -> pb.Begin:
    """What the coordinator is told before the bytes of a result."""
    return pb.Begin(
        assignment_id=result.assignment_id,
        run_id=result.run_id,
        version=wire.version_message(result.version),
        size=result.seal.size,
        sha256=result.seal.sha256,
        examples=result.examples,
        metrics=dict(result.metrics),
        work_s=result.work_s,
        residual_norm=result.residual_norm,
        eager=result.seal.size <= EAGER_BYTES,
    )
