"""Hands the story to the pages that are open, a piece at a time that is made once for all of them.

A page is nothing but the number of the last message it got: there is no queue for it, and what it costs is one write
for each piece. One that does not read falls behind, and gets the whole story, as it then stands, when it reads again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fedprune_server.page.story import Story

MAX_PAGES = 200
# A comment shows a proxy that the stream lives, and the server that a page is gone.
IDLE = b": still here\n\n"
RETRY = b"retry: 1000\n\n"


@dataclass(slots=True, kw_only=True)
class Feed:
    """All open pages of a process."""

    story: Story
    pages: int = 0
    _told: int = 0
    _closed: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _pieces: dict[tuple[int, int], bytes] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether one page more would be too many."""
        return self.pages >= MAX_PAGES

    def tell(self, *, anyway: bool = False) -> bool:
        """Let the pages have what is new; `anyway` gives them a sign of life where nothing is. Says whether it did."""
        if self._told == self.story.last and not anyway:
            return False
        self._told = self.story.last
        self._pieces.clear()
        # Who waits now waits for this one; who comes later for the next.
        news, self._news = self._news, asyncio.Event()
        news.set()
        return True

    def close(self) -> None:
        """Give the pages the rest and end all streams; nothing follows."""
        self._closed = True
        self.tell(anyway=True)

    async def listen(self, last_id: str) -> AsyncIterator[bytes]:
        """What one page is told: the story so far, or what it missed, and then everything as it happens."""
        self.pages += 1
        try:
            news, at, over = self._news, self.story.last, self._closed
            yield RETRY + self.story.since(last_id)
            while not over:
                await news.wait()
                news, piece, over = self._news, self._piece(at), self._closed
                at = self.story.last
                yield piece
        finally:
            self.pages -= 1

    def _piece(self, at: int) -> bytes:
        """What follows the message `at`. Pages that keep up all ask for the same."""
        stretch = (at, self.story.last)
        if stretch not in self._pieces:
            self._pieces[stretch] = self.story.after(at) or IDLE
        return self._pieces[stretch]
