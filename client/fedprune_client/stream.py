"""The work stream: what the coordinator says on it, and what goes back by the same way.

Answers to small results and the steps of an assignment come between its other messages; they are handed to who awaits
them, the rest to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc

from fedprune.errors import FedpruneError
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.troubles import as_error


class WorkStream:
    """The open stream of one client, if there is one. `server` names it in messages."""

    def __init__(self, server: str) -> None:
        self._server = server
        # The open call, who may write to it now, and what came or is awaited on it beside assignments.
        self._call: Any = None
        self._writing = asyncio.Lock()
        self._steps: list[pb.Step] = []
        self._answers: dict[int, asyncio.Future[pb.Answer | None]] = {}

    async def run(
        self, call: Any, outgoing: AsyncIterator[pb.ClientMessage]
    ) -> AsyncGenerator[pb.CoordinatorMessage, None]:
        """Send and receive until `call` ends; raises `UnavailableError` when it breaks."""
        sending = asyncio.create_task(self._send_all(call, outgoing))
        self._call = call
        inbox: asyncio.Queue[pb.CoordinatorMessage | FedpruneError | None] = asyncio.Queue()
        reading = asyncio.create_task(self._read_all(call, inbox))
        try:
            while (message := await inbox.get()) is not None:
                if isinstance(message, FedpruneError):
                    raise message
                yield message
        finally:
            # A sender that lived on would take messages away from the next stream.
            sending.cancel()
            reading.cancel()
            call.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)

    def take_steps(self) -> list[pb.Step]:
        """The parts that came with the last assignment, once."""
        steps, self._steps = self._steps, []
        return steps

    async def ask(self, begin: pb.Begin, frame: bytes, *, within_s: float) -> pb.Answer | None:
        """The answer to a result that is sent in one message; None where there is none in time."""
        if self._call is None:
            return None
        awaited: asyncio.Future[pb.Answer | None] = asyncio.get_running_loop().create_future()
        self._answers[begin.assignment_id] = awaited
        try:
            async with asyncio.timeout(within_s):
                message = pb.ClientMessage()
                message.result.begin.CopyFrom(begin)
                # set in its place: a result that is put into its message is copied once more
                message.result.data = frame
                await self._write(self._call, message)
                return await awaited
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            return None
        finally:
            del self._answers[begin.assignment_id]

    async def _read_all(self, call: Any, inbox: asyncio.Queue[pb.CoordinatorMessage | FedpruneError | None]) -> None:
        """Read on while an earlier message is dealt with: that may be waiting for an answer on this very stream."""
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                if not self._is_ours(message):
                    inbox.put_nowait(message)
            inbox.put_nowait(None)
        except grpc.aio.AioRpcError as error:
            inbox.put_nowait(as_error(error, self._server))
        finally:
            if self._call is call:
                self._hang_up()

    def _is_ours(self, message: pb.CoordinatorMessage) -> bool:
        """Give an answer to who awaits it, and keep the steps of an assignment for its pull; the rest is the caller's."""
        if message.WhichOneof("event") == "answer":
            awaited = self._answers.get(message.answer.assignment_id)
            if awaited is not None and not awaited.done():
                awaited.set_result(message.answer)
            return True
        if message.WhichOneof("event") == "assignment":
            self._steps = list(message.assignment.steps)
        return False

    def _hang_up(self) -> None:
        self._call = None
        self._steps = []
        for awaited in self._answers.values():
            # No error: who finds out by the write that the stream broke would leave it unheard, to be complained about.
            if not awaited.done():
                awaited.set_result(None)

    async def _send_all(self, call: Any, outgoing: AsyncIterator[pb.ClientMessage]) -> None:
        async for message in outgoing:
            try:
                await self._write(call, message)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return

    async def _write(self, call: Any, message: pb.ClientMessage) -> None:
        async with self._writing:
            await call.write(message)
