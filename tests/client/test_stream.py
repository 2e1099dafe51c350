"""A work stream that ends under somebody who waits for an answer on it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import grpc

from fedprune.v1 import coordinator_pb2 as pb
from fedprune_client.stream import WorkStream


class Call:
    """A stream whose reads and writes go on until it is over."""

    def __init__(self) -> None:
        self.writing = asyncio.Event()
        self.over = asyncio.Event()
        self.broken = asyncio.Event()

    async def write(self, message: pb.ClientMessage) -> None:
        self.writing.set()
        await self.broken.wait()
        raise asyncio.InvalidStateError

    async def read(self) -> object:
        await self.over.wait()
        return grpc.aio.EOF

    def cancel(self) -> None:
        """Nothing more comes."""


async def silence() -> AsyncIterator[pb.ClientMessage]:
    await asyncio.Event().wait()
    yield pb.ClientMessage()


async def test_who_asks_while_it_ends_hears_of_it_once() -> None:
    """The reader and the writer both find out; asyncio complains of an error that nobody took."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    call, stream = Call(), WorkStream("here")

    async def read() -> None:
        async for _ in stream.run(call, silence()):
            pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    asking = asyncio.create_task(stream.ask(pb.Begin(assignment_id=1), b"", within_s=100))
    await call.writing.wait()
    call.over.set()
    await reading
    call.broken.set()
    assert await asking is None
    del asking, reading
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
