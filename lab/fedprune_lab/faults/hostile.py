"""Clients that take all they can get and never finish, in a process of their own: `python -m fedprune_lab.faults.hostile`.

Each joins as an honest one would, says of every assignment that it cannot, so that no round waits for it, and then
holds as many calls as it may: uploads of the largest size that lack their last bytes, downloads that nobody reads, a
work stream that nobody reads. Now and then it sends the largest message there can be. Arguments: HOST:PORT, how many,
inputs and hidden units of the model, and the cores (2,3) that they compute on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
from typing import Any

import grpc

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION, Limits
from fedprune.framing import MAX_CHUNK_BYTES, MAX_MESSAGE_BYTES
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_client.channels import CHANNEL_OPTIONS
from fedprune_client.transport import IDENTITY_KEY
from fedprune_lab.faults.plan import Model

# With the work stream, one more than a client may have.
UPLOADS, DOWNLOADS = 4, 4
LACKS_BYTES = 1 << 10
AGAIN_S = 0.5


class Hostile:
    """One of them. `held` counts the calls that it holds open now."""

    def __init__(self, server: str, name: str, model: Model) -> None:
        self._schema = model.schema
        self._identity = ((IDENTITY_KEY, name),)
        self._name = name
        self._channel = grpc.aio.insecure_channel(server, options=CHANNEL_OPTIONS)
        self._stub: Any = rpc.CoordinatorStub(self._channel)
        self._size = Limits.of_update(self._schema).max_bytes
        self._calls: asyncio.TaskGroup = asyncio.TaskGroup()
        self._holding: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Be a nuisance until the coordinator is gone."""
        async with self._calls:
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await self._stub.Join(self._request(), metadata=self._identity)
                    await self._attend()
                await asyncio.sleep(AGAIN_S)

    def _request(self, package: str = "") -> pb.JoinRequest:
        tensors = wire.schema_message(self._schema)
        return pb.JoinRequest(codec_version=CODEC_VERSION, package_version=package, tensors=tensors)

    async def _attend(self) -> None:
        work = self._stub.Work(metadata=self._identity)
        await work.write(pb.ClientMessage(heartbeat=pb.Heartbeat()))
        while (message := await work.read()) is not grpc.aio.EOF:
            if message.WhichOneof("event") == "assignment":
                assignment = wire.assignment(message.assignment, party="the coordinator")
                failure = pb.Failure(assignment_id=assignment.assignment_id, reason="no")
                await work.write(pb.ClientMessage(failure=failure))
                self._besiege(assignment)

    def _besiege(self, assignment: Assignment) -> None:
        for task in self._holding:
            task.cancel()
        self._holding = {
            *(self._calls.create_task(self._clog(assignment, number)) for number in range(UPLOADS)),
            *(self._calls.create_task(self._stare(assignment)) for _ in range(DOWNLOADS)),
            self._calls.create_task(self._shout()),
        }

    async def _clog(self, assignment: Assignment, number: int) -> None:
        """An upload of the largest size, but for its last bytes; the newest is the one that may write."""
        begin = pb.Begin(
            assignment_id=assignment.assignment_id,
            run_id=assignment.run_id,
            version=wire.version_message(assignment.version),
            size=self._size,
            sha256=hashlib.sha256(f"{self._name}/{number}".encode()).hexdigest(),
            examples=1,
            eager=True,
        )
        call = self._stub.Submit(metadata=self._identity)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(pb.SubmitRequest(begin=begin))
            left = self._size - LACKS_BYTES
            while left > 0:
                count = min(left, MAX_CHUNK_BYTES)
                await call.write(pb.SubmitRequest(chunk=bytes(count)))
                left -= count
            await call.wait_for_connection()
            await asyncio.Event().wait()

    async def _stare(self, assignment: Assignment) -> None:
        """A download of everything that is never read."""
        want = pb.PullRequest(run_id=assignment.run_id, want=wire.version_message(assignment.version))
        call = self._stub.Pull(want, metadata=self._identity)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call.wait_for_connection()
            await asyncio.Event().wait()

    async def _shout(self) -> None:
        """The largest message there can be, for nothing."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._stub.Join(self._request("x" * (MAX_MESSAGE_BYTES - (1 << 16))), metadata=self._identity)


async def _all(server: str, count: int, model: Model) -> None:
    async with asyncio.TaskGroup() as everyone:
        for number in range(count):
            everyone.create_task(Hostile(server, f"hostile-{number}", model).run())


if __name__ == "__main__":
    where, many, inputs, hidden, cores = sys.argv[1:]
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    asyncio.run(_all(where, int(many), Model(inputs=int(inputs), hidden=int(hidden))))
