"""A TCP relay that counts every byte: the witness between clients and coordinator that has to believe neither.

It speaks no protocol. Whoever dials it is joined to the target; what one side sends reaches the other, an end of
sending stays a half-open connection, and a reset stays a reset. Bytes are counted as they are handed on, for each
connection and direction, as seen from the client: `up` goes to the target. All of them pass through `_Way.carry`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CHUNK_BYTES = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """Bytes that one connection, or all of them, carried so far; `client` is who dialled, "" for a sum."""

    client: str = ""
    up: int = 0
    down: int = 0


class Relay:
    """`async with Relay(host, port) as relay`: listens on `relay.port` of the loopback until the block ends, then
    resets what is still open. The counts stay readable afterwards."""

    def __init__(self, target_host: str, target_port: int) -> None:
        self._target = target_host, target_port
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        self.bytes_per_s = 0.0
        """How fast each direction of each connection is handed on; 0 as fast as it comes."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def connections(self) -> list[Crossed]:
        """Each connection so far, the closed ones too, in the order they came."""
        return [Crossed(client=c.client, up=c.up.bytes, down=c.down.bytes) for c in self._connections]

    @property
    def total(self) -> Crossed:
        """All connections together."""
        return Crossed(up=sum(c.up for c in self.connections), down=sum(c.down for c in self.connections))

    def point_at(self, host: str, port: int) -> None:
        """Join whoever dials from now on to another target."""
        self._target = host, port

    def cut(self) -> int:
        """Reset every open connection; returns how many those were. New ones are welcome."""
        cut = [task for task in self._tasks if task.cancel()]
        return len(cut)

    def hold(self) -> None:
        """Hand nothing on, silently, as a dead link does, until `release`."""
        self._flowing.clear()

    def release(self) -> None:
        """Hand on again."""
        self._flowing.set()

    async def _pace(self, count: int) -> None:
        await self._flowing.wait()
        if self.bytes_per_s:
            await asyncio.sleep(count / self.bytes_per_s)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
        except OSError:
            _hang_up(writer, reset=True)
            return
        connection = _Connection(writer)
        self._connections.append(connection)
        whole = False
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(connection.up.carry(reader, far_writer, self._pace))
                both.create_task(connection.down.carry(far_reader, writer, self._pace))
            whole = True
        except* OSError:
            pass  # one side broke off: `finally` breaks off the other
        finally:
            _hang_up(writer, reset=not whole)
            _hang_up(far_writer, reset=not whole)


@contextmanager
def relay_in_background(target_host: str, target_port: int) -> Iterator[Relay]:
    """A relay in a thread of its own, for a program that has no event loop."""
    relay = Relay(target_host, target_port)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        runner.run(relay.__aenter__())
        thread = threading.Thread(target=loop.run_forever, name="relay")
        thread.start()
        try:
            yield relay
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            runner.run(relay.__aexit__(None, None, None))


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        host, port, *_ = writer.get_extra_info("peername")
        self.client = f"{host}:{port}"
        self.up, self.down = _Way(), _Way()


class _Way:
    """One direction of one connection."""

    def __init__(self) -> None:
        self.bytes = 0

    async def carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pace: Callable[[int], Awaitable[None]]
    ) -> None:
        """Hand on what comes until the sender has no more, then tell the receiver so."""
        while chunk := await source.read(CHUNK_BYTES):
            await pace(len(chunk))
            sink.write(chunk)
            self.bytes += len(chunk)
            await sink.drain()
        sink.write_eof()


def _hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset and not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    writer.close()
