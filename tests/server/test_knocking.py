"""Handshakes that fail are limited by address; those that end in a call that is let in are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from fedprune.pki.subject import Role
from fedprune_server import knocking
from fedprune_server.knocking import Hanging, Knocks, read_peer

from .secure import channel, secured, status

STATUS = "/fedprune.v1.Coordinator/Status"

pytestmark = pytest.mark.skipif(not knocking.OPEN_FILES.exists(), reason="needs Linux: open files are read from /proc")


async def hung_up(address: str) -> bool:
    """Say something that is no TLS; True when the connection ended before an answer to it."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"\x16\x03\x01\x00\x05hello")
    with contextlib.suppress(ConnectionError):
        # TLS would answer with an alert.
        answer = await reader.read(1)
        writer.close()
        return not answer
    writer.close()
    return True


async def test_who_knocks_too_often_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "KNOCKS_AT_ONCE", 5.0)
    monkeypatch.setattr(knocking, "KNOCKS_PER_S", 1e-3)
    async with secured(tmp_path) as site:
        heard = [await hung_up(site.address) for _ in range(12)]
        assert site.security.knocks.hung_up == heard[6:].count(True) == 6
        assert await site.call(STATUS, site.member(Role.OBSERVER)) == "UNAVAILABLE"


async def test_who_is_let_in_may_come_back_as_often_as_it_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knocking, "KNOCKS_AT_ONCE", 3.0)
    monkeypatch.setattr(knocking, "KNOCKS_PER_S", 1e-3)
    async with secured(tmp_path) as site:
        member = site.member(Role.OBSERVER)
        assert [await site.call(STATUS, member) for _ in range(12)] == ["OK"] * 12
        async with channel(site.address, member, site.office.trust[0]) as kept:
            await status(kept, STATUS)
            for _ in range(10):
                await hung_up(site.address)
            # Who was in already stays in, also where others of its address are hung up on.
            assert await status(kept, STATUS) == "OK"
        assert site.security.knocks.hung_up > 0


def test_another_address_is_not_held_to_account_and_time_makes_good(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(knocking, "KNOCKS_AT_ONCE", 2.0)
    knocks = Knocks(clock=lambda: now_s)
    assert [knocks._counted("10.0.0.1") > 0 for _ in range(5)] == [False, False, False, True, True]
    assert knocks._counted("10.0.0.2") == 0
    now_s = 1 / knocking.KNOCKS_PER_S
    assert knocks._counted("10.0.0.1") == 0


def test_only_so_many_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knocking, "MOST_ADDRESSES", 3)
    knocks = Knocks()
    for number in range(10):
        knocks._counted(f"10.0.0.{number}")
    assert list(knocks._buckets) == ["10.0.0.7", "10.0.0.8", "10.0.0.9"]


def test_connections_of_other_ports_are_nobody_s_business() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as caller:
        accepted, _ = server.accept()
        with accepted:
            found = list(knocking._connections(server.getsockname()[1]))
            for _, handle in found:
                handle.close()
            assert [peer for peer, _ in found] == [caller.getsockname()]
            assert list(knocking._connections(1)) == []


async def test_a_connection_that_is_hung_up_on_ends_and_its_neighbour_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        callers = [socket.create_connection(address) for _ in range(3)]
        accepted = [server.accept()[0] for _ in callers]
        hanging = Hanging(address[1])
        for caller in callers[:2]:
            hanging.up("ipv4:{}:{}".format(*caller.getsockname()))
        hanging.up("unix:/run/x")
        loop = asyncio.get_running_loop()
        for caller in callers:
            caller.setblocking(False)
        ends = [await loop.sock_recv(caller, 1) for caller in callers[:2]]
        accepted[2].sendall(b"!")
        assert (ends, await loop.sock_recv(callers[2], 1)) == ([b"", b""], b"!")
        for one in (*callers, *accepted):
            one.close()


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:10.0.0.1:5000", ("10.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("ipv6:[::ffff:10.0.0.1]:5000", ("10.0.0.1", 5000)),
        ("ipv6:%5Bfe80::1%25eth0%5D:7", ("fe80::1", 7)),
        ("unix:/run/x", None),
    ],
)
def test_peers_as_grpc_names_them(text: str, peer: tuple[str, int] | None) -> None:
    assert read_peer(text) == peer
