"""Calls that end because another took their place, or because their caller may make none any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fedprune.errors import RoleError, UnavailableError
from fedprune_server.leashes import Leashes, Newest


async def held(newest: Newest, identity: str, method: str, opened: asyncio.Event) -> None:
    async with newest.hold(identity, method, f"client {identity}"):
        opened.set()
        await asyncio.Event().wait()


async def opened(newest: Newest, identity: str, method: str) -> asyncio.Task[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(held(newest, identity, method, ready))
    await ready.wait()
    return task


async def test_the_newest_of_a_kind_ends_the_one_before() -> None:
    newest = Newest()
    older = await opened(newest, "a", "Pull")
    newer = await opened(newest, "a", "Pull")
    with pytest.raises(UnavailableError, match="client a: goes on over another call"):
        await older
    newest_of_all = await opened(newest, "a", "Pull")
    with pytest.raises(UnavailableError):
        await newer
    newest_of_all.cancel()
    with pytest.raises(asyncio.CancelledError):
        await newest_of_all


async def test_other_kinds_and_other_clients_go_on() -> None:
    newest = Newest()
    calls = [await opened(newest, *who) for who in (("a", "Pull"), ("a", "Submit"), ("b", "Pull"))]
    await asyncio.sleep(0)
    assert not any(call.done() for call in calls)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_time_limit_of_the_caller_stays_its_own() -> None:
    with pytest.raises(TimeoutError):
        async with Newest().hold("a", "Pull", "client a"):
            raise TimeoutError


async def waiting(leashes: Leashes, end: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """A call of client a that waits for ever, and once it is cut ends as `end` does."""
    ready = asyncio.Event()

    async def call() -> None:
        async with leashes.hold("a", "client a", longest_s=None):
            try:
                ready.set()
                await asyncio.Event().wait()
            finally:
                await end()

    task = asyncio.create_task(call())
    await ready.wait()
    return task


async def test_a_call_that_is_cut_has_ended_when_the_cut_is_over() -> None:
    leashes = Leashes()
    call = await waiting(leashes, lambda: asyncio.sleep(0.05))
    assert await leashes.cut("a") == 1
    assert call.done()
    with pytest.raises(RoleError, match="client a: the key was revoked"):
        await call


async def test_a_call_that_does_not_end_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedprune_server.leashes.ENDING_S", 0.02)
    leashes, over = Leashes(), asyncio.Event()

    async def end() -> None:
        await over.wait()

    call = await waiting(leashes, end)
    assert await leashes.cut("a") == 1
    assert not call.done()
    over.set()
    with pytest.raises(RoleError):
        await call
