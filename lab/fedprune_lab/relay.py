"""A TCP relay that counts every byte: the witness between clients and coordinator that has to believe neither.

It speaks no protocol. Whoever dials it is joined to the target; what one side sends reaches the other, an end of
sending stays a half-open connection, and a reset stays a reset. Bytes are counted as they are handed on, for each
connection and direction, as seen from the client: `up` goes to the target. All of them pass through `_Way`.

It can also be a bad line: slow, far away, and broken now and then (`link.py`).
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fedprune_lab.link import LARGEST_SLICE, Line, Link

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """Bytes that one connection, or all of them, carried so far; `client` is who dialled, "" for a sum."""

    client: str = ""
    up: int = 0
    down: int = 0


class Relay:
    """`async with Relay(host, port) as relay`: listens on `relay.port` of `relay.host`, the loopback unless changed,
    until the block ends, then resets what is still open. The counts stay readable afterwards. Each connection has a
    line of its own, of the kind that `link` is when it comes."""

    def __init__(self, target_host: str, target_port: int, link: Link | None = None) -> None:
        self._target = target_host, target_port
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.host, self.port = "127.0.0.1", 0
        self.link = link or Link()
        self._weather: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=LARGEST_SLICE)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.link.reset_every_s:
            self._weather.append(asyncio.create_task(self._reset_now_and_then(self.link.reset_every_s)))
        if self.link.cut_every_s:
            self._weather.append(asyncio.create_task(self._cut_now_and_then(self.link.cut_every_s, self.link.cut_s)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        ending = [*self._weather, *self._tasks]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
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

    async def _reset_now_and_then(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(random.expovariate(1 / every_s))
            self.cut()

    async def _cut_now_and_then(self, every_s: float, cut_s: float) -> None:
        while True:
            await asyncio.sleep(random.expovariate(1 / every_s))
            self.hold()
            await asyncio.sleep(cut_s)
            self.release()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._forget(task, writer))

    def _forget(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        """A task that was cancelled before its first step has broken nothing off."""
        self._tasks.discard(task)
        if not writer.is_closing():
            _hang_up(writer, reset=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends, whole = [writer], False
        try:
            # Shaking hands takes a round trip before the first byte.
            await asyncio.sleep(2 * self.link.delay_s)
            far_reader, far_writer = await asyncio.open_connection(*self._target, limit=LARGEST_SLICE)
            ends.append(far_writer)
            connection = _Connection(writer, self.link, self._flowing)
            self._connections.append(connection)
            async with asyncio.TaskGroup() as both:
                both.create_task(connection.up.carry(reader, far_writer))
                both.create_task(connection.down.carry(far_reader, writer))
            whole = True
        except* OSError:
            pass  # one side broke off, or was never there: `finally` breaks off the other
        finally:
            for end in ends:
                _hang_up(end, reset=not whole)


@contextmanager
def relay_in_background(target_host: str, target_port: int, link: Link | None = None) -> Iterator[Relay]:
    """A relay in a thread of its own, for a program that has no event loop."""
    relay = Relay(target_host, target_port, link)
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
    def __init__(self, writer: asyncio.StreamWriter, link: Link, flowing: asyncio.Event) -> None:
        host, port, *_ = writer.get_extra_info("peername")
        self.client = f"{host}:{port}"
        self.up, self.down = _Way(link, flowing), _Way(link, flowing)


class _Way:
    """One direction of one connection: what is read waits in a queue until it has arrived."""

    def __init__(self, link: Link, flowing: asyncio.Event) -> None:
        self.bytes = 0
        self._line = Line(link, lambda: random.uniform(-1, 1))
        self._slice_bytes = link.slice_bytes
        self._flowing = flowing
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(link.slices_under_way)

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Hand on what comes until the sender has no more, then tell the receiver so."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(source))
            both.create_task(self._give(sink))

    async def _take(self, source: asyncio.StreamReader) -> None:
        now_s = asyncio.get_running_loop().time
        piece = b"-"
        while piece:
            piece = await source.read(self._slice_bytes)
            await self._under_way.put((self._line.arrival_s(now_s(), len(piece)), piece))
            if wait_s := self._line.wait_s(now_s()):
                await asyncio.sleep(wait_s)

    async def _give(self, sink: asyncio.StreamWriter) -> None:
        now_s = asyncio.get_running_loop().time
        while True:
            due_s, piece = await self._under_way.get()
            if (wait_s := due_s - now_s()) > 0:
                await asyncio.sleep(wait_s)
            await self._flowing.wait()
            if not piece:
                return sink.write_eof()
            sink.write(piece)
            self.bytes += len(piece)
            await sink.drain()


def _hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset and not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
    writer.close()
