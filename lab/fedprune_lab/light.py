"""Many clients in one process that pull and submit for real but do not train: load for measuring a coordinator.

Each has a connection, an identity and a work stream of its own, and every byte crosses the socket. What they share is
the model and the update: for each version one frame is encoded for all of them. Nothing is sealed on disk and nothing
is decoded, so that what is measured is the coordinator and the network. Its arguments: HOST:PORT, task file, number of
clients, name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fedprune import wire
from fedprune.assignment import Assignment
from fedprune.codec import CODEC_VERSION, encode_update
from fedprune.framing import seal
from fedprune.mask import Mask
from fedprune.parts import Part
from fedprune.pki.credentials import Credentials
from fedprune.task import load_task
from fedprune.tensor import Schema, Version
from fedprune.torch import Arrays, build_model, frozen_digest, signature, to_arrays
from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.outbox import Result
from fedprune_client.replica import Replica
from fedprune_client.transport import EAGER_BYTES, Link, begin_message

HEARTBEAT_S = 5.0
SPREAD = np.float32(0.01)


@dataclass(slots=True, kw_only=True)
class Crowd:
    """What the light clients of a process share. A run must be dense: masks are never looked at."""

    schema: Schema
    weights: Arrays
    frozen: str
    _frames: dict[Version, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Path) -> Crowd:
        """The task's model as it comes."""
        loaded = load_task(task)
        model = build_model(loaded, seed=0)
        schema = signature(model)
        return cls(schema=schema, weights=to_arrays(model, schema), frozen=frozen_digest(model))

    def frame(self, version: Version) -> bytes:
        """The update that everyone sends against this version."""
        if version not in self._frames:
            self._frames.clear()
            mask = Mask.full(self.schema, version=version.mask)
            self._frames[version] = encode_update(self._moved(version), schema=self.schema, mask=mask, version=version)
        return self._frames[version]

    def _moved(self, version: Version) -> Arrays:
        """Weights that differ from version to version, so that the coordinator's broadcast is one worth sending."""
        noise = np.random.default_rng(version.model)
        return {
            name: array + SPREAD * noise.standard_normal(array.shape, np.float32)
            if array.dtype == np.float32
            else array
            for name, array in self.weights.items()
        }


class LightClient:
    """One client of the crowd; with `credentials` over TLS, under their name."""

    def __init__(self, crowd: Crowd, server: str, identity: str, credentials: Credentials | None = None) -> None:
        self._crowd = crowd
        self._link = Link(server, identity, say=lambda _: None, credentials=credentials)
        self._replica = Replica(schema=crowd.schema)

    async def run(self) -> None:
        """Answer assignments until the run is over."""
        try:
            await self._link.join(
                pb.JoinRequest(
                    codec_version=CODEC_VERSION,
                    tensors=wire.schema_message(self._crowd.schema),
                    frozen_digest=self._crowd.frozen,
                )
            )
            async for message in self._link.work(self._signs_of_life()):
                if message.WhichOneof("event") == "run_end":
                    return
                if message.WhichOneof("event") == "assignment":
                    await self.answer(wire.assignment(message.assignment, party="the coordinator"))
        finally:
            await self._link.close()

    async def answer(self, assignment: Assignment) -> None:
        """Pull, and send the update that everyone sends."""
        begin, frame = await self.prepared(assignment)
        await self._link.submit(begin, frame, chunk_bytes=EAGER_BYTES)

    async def prepared(self, assignment: Assignment) -> tuple[pb.Begin, bytes]:
        """Pull; gives the announcement and the bytes of the update."""
        await self._link.pull(assignment.run_id, self._replica, assignment.version, self._take)
        frame = self._crowd.frame(assignment.version)
        result = Result(
            run_id=assignment.run_id,
            assignment_id=assignment.assignment_id,
            seal=seal(frame),
            examples=1,
            version=assignment.version,
        )
        return begin_message(result), frame

    async def _take(self, part: Part, _: memoryview) -> None:
        self._replica.version = part.version

    @staticmethod
    async def _signs_of_life() -> AsyncIterator[pb.ClientMessage]:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            yield pb.ClientMessage(heartbeat=pb.Heartbeat())


def run(arguments: list[str]) -> int:
    """So many clients called name-1, name-2, ..., until their run is over; arguments as in the module's text."""
    server, task, clients, name = arguments
    asyncio.run(_everyone(server, Path(task), int(clients), name))
    return 0


async def _everyone(server: str, task: Path, clients: int, name: str) -> None:
    shared = Crowd.of(task)
    async with asyncio.TaskGroup() as everyone:
        for number in range(1, clients + 1):
            everyone.create_task(LightClient(shared, server, f"{name}-{number}").run())
