"""A client that is driven by hand, message by message, so that it can do what an honest one never would."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION, encode_update
from fedprune.framing import Assembler
from fedprune.parts import Part
from fedprune.tensor import Schema, Version
from fedprune.v1 import coordinator_pb2 as pb
from fedprune.v1 import coordinator_pb2_grpc as rpc
from fedprune_client.replica import Replica

CHUNK_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a call was refused with."""

    status: str
    text: str


# What grpc.aio itself makes of a write that meets the end of its call: the coordinator's own words are gone then.
CROSSED = Refusal("INTERNAL", "Internal error from Core")


class Stranger:
    """`async with Stranger(address, identity, schema) as stranger`; every call is made at once, and what the coordinator
    says to it is the answer."""

    def __init__(self, address: str, identity: str | None, schema: Schema) -> None:
        self.identity = identity
        self.schema = schema
        self.metadata = (("fedprune-identity", identity),) if identity is not None else ()
        # No limit on this side: what the coordinator does about size is the question.
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.aio.insecure_channel(address, options=options)
        self.stub: Any = rpc.CoordinatorStub(self.channel)
        self.work: Any = None
        self.run_id = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *trouble: object) -> None:
        await self.channel.close()

    async def join(self, **changed: Any) -> pb.JoinReply:
        """Join, with some fields of the request as the test wants them."""
        fields: dict[str, Any] = {"codec_version": CODEC_VERSION, "tensors": wire.schema_message(self.schema)} | changed
        while True:
            try:
                reply: pb.JoinReply = await self.stub.Join(pb.JoinRequest(**fields), metadata=self.metadata)
                return reply
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.01)  # the run is being built

    async def come(self) -> None:
        """Join and open the work stream."""
        await self.join()
        self.work = self.stub.Work(metadata=self.metadata)
        await self.work.write(pb.ClientMessage(heartbeat=pb.Heartbeat()))

    async def told(self, event: str) -> Any:
        """The next message of this kind on the work stream."""
        while (message := await self.work.read()) is not grpc.aio.EOF:
            if message.WhichOneof("event") == "start":
                self.run_id = message.start.run_id
                self.schema = self.schema.with_roles(wire.roles(message.start.roles, party="the coordinator"))
            if message.WhichOneof("event") == event:
                return getattr(message, event)
        raise AssertionError(f"the work stream ended before {event}")

    async def assignment(self) -> Assignment:
        """The next assignment."""
        return wire.assignment(await self.told("assignment"), party="the coordinator")

    async def pull(self, version: Version) -> Replica:
        """The version, as a client without anything gets it."""
        replica = Replica(schema=self.schema)
        call = self.stub.Pull(
            pb.PullRequest(run_id=self.run_id, want=wire.version_message(version)), metadata=self.metadata
        )
        part: Part | None = None
        blob: Assembler | None = None
        async for reply in call:
            if reply.WhichOneof("content") == "header":
                part = wire.part(reply.header, party="the coordinator")
                blob = Assembler(
                    wire.seal(reply.header, party="the coordinator"),
                    max_bytes=replica.max_bytes(part),
                    party="the coordinator",
                )
            else:
                assert part is not None
                assert blob is not None
                blob.feed(reply.chunk)
                if blob.complete:
                    replica.apply(part, blob.finish())
        return replica

    async def update(self, assignment: Assignment, *, moved: float = 0.01) -> bytes:
        """An update that every coordinator takes: each weight moved by the same amount."""
        replica = await self.pull(assignment.version)
        assert replica.mask is not None
        weights: dict[str, NDArray[Any]] = {name: array.copy() for name, array in replica.weights.items()}
        for array in weights.values():
            if array.dtype == np.float32:
                array += moved
        replica.mask.apply(weights)
        return self.encode(assignment, replica, weights)

    def encode(self, assignment: Assignment, replica: Replica, weights: Mapping[str, NDArray[Any]]) -> bytes:
        """Weights as the frame of an update."""
        return encode_update(
            weights, schema=self.schema, mask=replica.mask, base=replica.weights, version=assignment.version
        )

    def begin(self, assignment: Assignment, frame: bytes, **changed: Any) -> pb.Begin:
        """The announcement of a frame, with some fields as the test wants them."""
        fields: dict[str, Any] = {
            "assignment_id": assignment.assignment_id,
            "run_id": assignment.run_id,
            "version": wire.version_message(assignment.version),
            "size": len(frame),
            "sha256": hashlib.sha256(frame).hexdigest(),
            "examples": 10,
        }
        return pb.Begin(**(fields | changed))

    async def submit(self, begin: pb.Begin, frame: bytes, *, chunk_bytes: int = CHUNK_BYTES) -> pb.Receipt | Refusal:
        """Send a frame under an announcement; what the coordinator says to it."""
        return await self.send(
            pb.SubmitRequest(begin=begin),
            *(pb.SubmitRequest(chunk=frame[at : at + chunk_bytes]) for at in range(0, len(frame), chunk_bytes)),
        )

    async def send(self, *messages: pb.SubmitRequest) -> pb.Receipt | Refusal:
        """One submission, message by message, to its end; again where the refusal was lost on the way."""
        while True:
            answer = await self._send_once(*messages)
            if answer != CROSSED:
                return answer

    async def _send_once(self, *messages: pb.SubmitRequest) -> pb.Receipt | Refusal:
        call = self.stub.Submit(metadata=self.metadata, timeout=100)
        try:
            for message in messages:
                await call.write(message)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the coordinator has ended the call: it says why
        try:
            while (reply := await call.read()) is not grpc.aio.EOF:
                if reply.WhichOneof("content") == "receipt":
                    receipt: pb.Receipt = reply.receipt
                    return receipt
        except grpc.aio.AioRpcError as error:
            return Refusal(error.code().name, error.details() or "")
        raise AssertionError("neither receipt nor refusal")


async def refusal_of(call: Any) -> Refusal:
    """What a unary call, or the first answer of a stream, was refused with."""
    try:
        await (call if not hasattr(call, "read") else call.read())
    except grpc.aio.AioRpcError as error:
        return Refusal(error.code().name, error.details() or "")
    raise AssertionError("it was not refused")
