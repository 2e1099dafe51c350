"""The relay between plain sockets: bytes, ends and breaks arrive as they were sent, and are counted."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from fedprune.sockets import Counters, SocketMeter
from fedprune_lab.link import Link
from fedprune_lab.ports import Ports
from fedprune_lab.relay import Crossed, Relay

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Target:
    """A server whose accepted connections the test holds in its hands."""

    port: int
    accepted: asyncio.Queue[Streams]


@asynccontextmanager
async def target() -> AsyncIterator[Target]:
    accepted: asyncio.Queue[Streams] = asyncio.Queue()
    held: list[asyncio.StreamWriter] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield Target(port=server.sockets[0].getsockname()[1], accepted=accepted)
    finally:
        server.close()
        for writer in held:
            writer.transport.abort()


@asynccontextmanager
async def relayed(link: Link | None = None) -> AsyncIterator[tuple[Relay, Streams, Streams]]:
    """(relay, the dialling end, the accepted end) of one connection through a relay."""
    async with target() as far, Relay("127.0.0.1", far.port, link) as relay:
        near = await asyncio.open_connection("127.0.0.1", relay.port)
        try:
            yield relay, near, await far.accepted.get()
        finally:
            near[1].transport.abort()


async def test_what_is_sent_arrives_and_is_counted_in_its_direction() -> None:
    payload = bytes(range(256)) * 4096
    async with relayed() as (relay, near, far):
        near[1].write(payload)
        assert await far[0].readexactly(len(payload)) == payload
        far[1].write(b"thanks")
        assert await near[0].readexactly(6) == b"thanks"
        (seen,) = relay.connections
        assert (seen.up, seen.down) == (len(payload), 6)
        assert seen.client == "127.0.0.1:{}".format(near[1].get_extra_info("sockname")[1])


async def test_an_end_of_sending_passes_while_the_other_direction_stays_open() -> None:
    async with relayed() as (relay, near, far):
        near[1].write(b"question")
        near[1].write_eof()
        assert await far[0].read() == b"question"
        far[1].write(b"answer")
        far[1].write_eof()
        assert await near[0].read() == b"answer"
        assert relay.total == Crossed(up=8, down=6)


async def test_a_reset_by_the_client_reaches_the_target_as_a_reset() -> None:
    async with relayed() as (_, near, far):
        near[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near[1].transport.abort()
        with pytest.raises(ConnectionResetError):
            await far[0].read()


async def test_a_reset_by_the_target_reaches_the_client_as_a_reset() -> None:
    async with relayed() as (_, near, far):
        far[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far[1].transport.abort()
        with pytest.raises(ConnectionResetError):
            await near[0].read()


async def test_a_target_that_is_not_there_resets_the_client_and_counts_no_connection() -> None:
    with Ports() as ports:
        async with Relay("127.0.0.1", ports.take()) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            assert relay.connections == []


async def test_leaving_the_block_breaks_open_connections_and_keeps_the_counts() -> None:
    async with target() as far:
        async with Relay("127.0.0.1", far.port) as relay:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            accepted, _ = await far.accepted.get()
            writer.write(b"half of a")
            await accepted.readexactly(9)
        with pytest.raises(ConnectionResetError):
            await accepted.read()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert relay.total == Crossed(up=9)


async def test_connections_are_counted_apart() -> None:
    async with target() as far, Relay("127.0.0.1", far.port) as relay:
        for size in (3, 5):
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            accepted, _ = await far.accepted.get()
            writer.write(b"x" * size)
            await accepted.readexactly(size)
            writer.close()
            assert await accepted.read() == b""
        assert [c.up for c in relay.connections] == [3, 5]
        assert relay.total.up == 8


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters are read on Linux")
async def test_kernel_and_relay_agree_to_the_byte() -> None:
    async with target() as far:
        meter = SocketMeter(listening_port=far.port)
        async with Relay("127.0.0.1", far.port) as relay:
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            reader, answer = await far.accepted.get()
            answer.write(b"y" * 4321)
            writer.write(b"x" * 1_000_000)
            await reader.readexactly(1_000_000)
            sample = meter.sample()
            assert sample is not None
            (seen,) = sample.values()
            assert seen == Counters(sent=relay.total.down, received=relay.total.up)
            assert relay.total == Crossed(up=1_000_000, down=4321)
            writer.transport.abort()
        meter.close()


async def test_a_slow_and_distant_line_brings_everything_in_order_and_not_before_its_time() -> None:
    link = Link(rate_bit_per_s=20e6, delay_s=0.005, jitter_s=0.005)
    payload = bytes(range(251)) * 200
    clock = asyncio.get_running_loop().time
    async with relayed(link) as (relay, near, far):
        began_s = clock()
        near[1].write(payload)
        near[1].write_eof()
        assert await far[0].read() == payload
        # What the line needs at least; how much longer it took is the machine's business.
        assert clock() - began_s >= 8 * len(payload) / link.rate_bit_per_s
        assert relay.total == Crossed(up=len(payload))


async def test_a_line_that_breaks_now_and_then_resets_whoever_dialled() -> None:
    async with target() as far, Relay("127.0.0.1", far.port, Link(reset_every_s=1e-3)) as relay:
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()


async def test_a_line_that_is_cut_for_a_while_loses_nothing() -> None:
    async with relayed(Link(cut_every_s=1e-4, cut_s=1e-3)) as (relay, near, far):
        for number in range(20):
            near[1].write(bytes([number]) * 100)
            assert await far[0].readexactly(100) == bytes([number]) * 100
        assert relay.total == Crossed(up=2000)


async def test_what_is_held_arrives_when_it_is_released() -> None:
    async with relayed() as (relay, near, far):
        relay.hold()
        near[1].write(b"wait")
        arriving = asyncio.ensure_future(far[0].readexactly(4))
        await asyncio.wait([arriving], timeout=0.02)
        assert not arriving.done()
        relay.release()
        assert await arriving == b"wait"
