"""Hands messages to the pages that are open. A page that does not keep up is dropped; it comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fedprune_server.page.story import Story

MAX_QUEUED = 128
MAX_PAGES = 200
# A comment now and then shows a proxy that the stream lives, and the server that a page is gone.
IDLE_S = 15.0
IDLE = b": still here\n\n"
RETRY = b"retry: 1000\n\n"


@dataclass(slots=True, kw_only=True)
class Feed:
    """All open pages of a process."""

    story: Story
    _pages: set[asyncio.Queue[bytes | None]] = field(default_factory=set)

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return len(self._pages)

    @property
    def full(self) -> bool:
        """Whether one page more would be too many."""
        return self.pages >= MAX_PAGES

    def send(self, message: bytes) -> None:
        """Tell all pages."""
        for page in list(self._pages):
            if page.qsize() >= MAX_QUEUED:
                self._drop(page)
            else:
                page.put_nowait(message)

    def close(self) -> None:
        """End all streams; nothing follows."""
        for page in list(self._pages):
            self._drop(page)

    async def listen(self, last_id: str) -> AsyncIterator[bytes]:
        """What one page is told: the story so far, or what it missed, and then everything as it happens."""
        page: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._pages.add(page)
        try:
            yield RETRY + b"".join(self.story.since(last_id))
            while True:
                try:
                    messages = [await asyncio.wait_for(page.get(), IDLE_S)]
                except TimeoutError:
                    messages = [IDLE]
                # What waits goes out in one piece: writing costs more than what is written.
                while not page.empty():
                    messages.append(page.get_nowait())
                told = b"".join(message for message in messages if message is not None)
                if told:
                    yield told
                if None in messages:
                    return
        finally:
            self._pages.discard(page)

    def _drop(self, page: asyncio.Queue[bytes | None]) -> None:
        self._pages.discard(page)
        while not page.empty():
            page.get_nowait()
        page.put_nowait(None)
