"""Who listens gets everything in order; who does not read is dropped, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fedprune_server.page import feed as feeds
from fedprune_server.page.feed import IDLE, MAX_QUEUED, RETRY, Feed
from fedprune_server.page.story import Story


@pytest.fixture
def feed() -> Feed:
    return Feed(story=Story(epoch="e"))


async def opened(feed: Feed) -> AsyncIterator[bytes]:
    """A page that has heard the story so far."""
    page = feed.listen("")
    assert (await anext(page)).startswith(RETRY + b"id: e.")
    return page


async def test_a_page_hears_what_happens_in_order(feed: Feed) -> None:
    page = await opened(feed)
    for message in (b"1", b"2"):
        feed.send(message)
    assert await anext(page) == b"12"
    feed.send(b"3")
    assert await anext(page) == b"3"


async def test_a_page_that_does_not_read_is_dropped_and_the_others_are_not(feed: Feed) -> None:
    slow, quick = await opened(feed), await opened(feed)
    for number in range(MAX_QUEUED + 1):
        feed.send(b"%d" % number)
        assert await anext(quick) == b"%d" % number
    assert [message async for message in slow] == []
    assert feed.pages == 1


async def test_the_end_of_the_process_ends_the_streams(feed: Feed) -> None:
    page = await opened(feed)
    feed.close()
    assert [message async for message in page] == []
    assert feed.pages == 0


async def test_a_page_that_goes_away_is_forgotten(feed: Feed) -> None:
    async def hear() -> None:
        async for _ in feed.listen(""):
            heard.set()

    heard = asyncio.Event()
    page = asyncio.create_task(hear())
    await heard.wait()
    assert feed.pages == 1
    page.cancel()
    await asyncio.gather(page, return_exceptions=True)
    assert feed.pages == 0


async def test_silence_is_broken_now_and_then(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "IDLE_S", 0.0)
    assert await anext(await opened(feed)) == IDLE
