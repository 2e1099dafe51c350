"""Calls that end because another took their place, or because their caller may make none any more."""

from __future__ import annotations

import asyncio

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


async def test_a_call_that_is_cut_has_ended_when_the_cut_is_over() -> None:
    leashes, ready, said = Leashes(), asyncio.Event(), list[str]()

    async def call() -> None:
        async with leashes.hold("a", "client a", longest_s=None):
            try:
                ready.set()
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)
                said.append("over")

    open_ = asyncio.create_task(call())
    await ready.wait()
    assert await leashes.cut("a") == 1
    assert said == ["over"]
    with pytest.raises(RoleError, match="client a: the key was revoked"):
        await open_


async def test_a_call_that_does_not_end_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedprune_server.leashes.ENDING_S", 0.02)
    leashes, ready, done = Leashes(), asyncio.Event(), asyncio.Event()

    async def call() -> None:
        async with leashes.hold("a", "client a", longest_s=None):
            try:
                ready.set()
                await asyncio.Event().wait()
            finally:
                await done.wait()

    open_ = asyncio.create_task(call())
    await ready.wait()
    assert await leashes.cut("a") == 1
    assert not open_.done()
    done.set()
    with pytest.raises(RoleError):
        await open_
