"""Who listens gets everything in order and once; who does not read gets the newest, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fedprune_server.page.feed import IDLE, RETRY, Feed
from fedprune_server.page.story import KEPT_MESSAGES, Story


@pytest.fixture
def feed() -> Feed:
    story = Story(epoch="e")
    story.begin({"run_id": "r"}, [])
    return Feed(story=story)


async def opened(feed: Feed) -> AsyncIterator[bytes]:
    """A page that has heard the story so far."""
    page = feed.listen("")
    assert (await anext(page)).startswith(RETRY + b"id: e.")
    return page


def events(piece: bytes) -> list[tuple[str, Any]]:
    """Event and value of each message."""
    lines = [line.partition(": ")[2] for line in piece.decode().splitlines()]
    return [(lines[at + 1], json.loads(lines[at + 2])) for at in range(0, len(lines), 4)]


async def test_what_happened_between_two_ticks_comes_in_one_piece(feed: Feed) -> None:
    page = await opened(feed)
    feed.story.round(1)
    feed.story.round(2)
    assert feed.tell()
    assert events(await anext(page)) == [("round", 1), ("round", 2)]
    feed.story.round(3)
    assert feed.tell()
    assert events(await anext(page)) == [("round", 3)]
    assert not feed.tell()


async def test_pages_that_keep_up_share_the_bytes(feed: Feed) -> None:
    pages = [await opened(feed) for _ in range(3)]
    feed.story.round(1)
    feed.tell()
    first, *others = [await anext(page) for page in pages]
    assert all(piece is first for piece in others)


async def test_what_happens_while_a_page_is_written_to_is_not_lost(feed: Feed) -> None:
    slow, quick = await opened(feed), await opened(feed)
    feed.story.round(1)
    feed.tell()
    assert events(await anext(quick)) == [("round", 1)]
    # Not told yet: the quick page's piece must not stand for what the slow one gets now.
    feed.story.round(2)
    assert events(await anext(slow)) == [("round", 1), ("round", 2)]
    feed.story.round(3)
    feed.tell()
    assert events(await anext(quick)) == [("round", 2), ("round", 3)]
    assert events(await anext(slow)) == [("round", 3)]


async def test_a_page_that_does_not_read_costs_nothing_and_then_gets_the_newest(feed: Feed) -> None:
    slow, quick = await opened(feed), await opened(feed)
    for number in range(KEPT_MESSAGES + 1):
        feed.story.round(number)
        feed.tell()
        assert events(await anext(quick)) == [("round", number)]
    ((event, whole),) = events(await anext(slow))
    assert event == "story"
    assert whole["runs"][0]["rounds"] == list(range(KEPT_MESSAGES + 1))


async def test_the_end_of_the_process_ends_the_streams_with_the_rest(feed: Feed) -> None:
    page, idle = await opened(feed), await opened(feed)
    feed.story.end({"outcome": "finished"})
    feed.close()
    assert [events(piece) for piece in [piece async for piece in page]] == [[("end", {"outcome": "finished"})]]
    assert len([piece async for piece in idle]) == 1
    assert feed.pages == 0


async def test_what_is_said_after_the_end_holds_no_stream_open(feed: Feed) -> None:
    page = await opened(feed)
    feed.close()
    await anext(page)
    feed.story.note({"text": "too late"})
    assert [piece async for piece in page] == []


async def test_a_page_that_goes_away_is_forgotten_and_the_others_hear_on(feed: Feed) -> None:
    async def hear() -> None:
        async for _ in feed.listen(""):
            heard.set()

    heard, other = asyncio.Event(), await opened(feed)
    page = asyncio.create_task(hear())
    await heard.wait()
    assert feed.pages == 2
    page.cancel()
    await asyncio.gather(page, return_exceptions=True)
    assert feed.pages == 1
    feed.story.round(1)
    feed.tell()
    assert events(await anext(other)) == [("round", 1)]


async def test_silence_is_broken_where_somebody_says_so(feed: Feed) -> None:
    feed.tell()
    page = await opened(feed)
    assert not feed.tell()
    assert feed.tell(anyway=True)
    assert await anext(page) == IDLE
