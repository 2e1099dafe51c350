"""Memory that is written from the front, and used again for the next segment.

Fresh pages cost more than everything that is done to them: a frame that asks for its memory once, and writes where it
will stay, is made in half the time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np

from fedprune.allocator import advise_large_pages
from fedprune.codec.base import Bytes, Part

LARGE_FRAME_BYTES = 4 << 20


class Room:
    """Bytes under construction; `restart` before each use, what was `written` is valid until the next."""

    __slots__ = ("_at", "_memory", "bytes_before")

    def __init__(self) -> None:
        self.bytes_before = 0  # what can come, of a frame, between what is done and what is written next
        self._at = 0
        self._memory = np.empty(0, np.uint8)

    def restart(self, capacity: int) -> None:
        """Forget what was written; from now on there is space for `capacity` bytes."""
        self._at = 0
        if self._memory.size < capacity:
            self._memory = np.empty(capacity, np.uint8)

    def ahead(self, count: int) -> Bytes:
        """The next `count` bytes, to be filled; they count as written once `advance` says so."""
        return self._memory[self._at : self._at + count]

    def advance(self, count: int) -> None:
        """Take the next `count` bytes as written."""
        self._at += count

    def put(self, parts: Iterable[Part]) -> None:
        """Write `parts`, one after the other."""
        for part in parts:
            self.ahead(len(part))[:] = np.frombuffer(part, np.uint8)
            self.advance(len(part))

    @property
    def written(self) -> memoryview:
        """What was written since `restart`, not copied."""
        return self._memory[: self._at].data


class FrameRoom(Room):
    """The memory of a whole frame: what is coded in it stays where it was written.

    What comes before it, such as a head, is as long as the numbers in it, which are known last. Space is left for
    `bytes_before`, the most that can be; where less came, what was written moves.
    """

    __slots__ = ("_done", "_sink", "_start", "_view", "_whole")

    def __init__(self, expected_bytes: int) -> None:
        super().__init__()
        self._done = 0
        self._start: int | None = None
        self._view = memoryview(b"")
        self._whole = np.empty(0, np.uint8)
        self._grow(expected_bytes)

    def restart(self, capacity: int) -> None:
        """As in any room; behind the frame as far as it is done, where `capacity` bytes fit there."""
        start = self._done + self.bytes_before
        self._at = 0
        if start + capacity <= self._whole.size:
            self._start, self._memory = start, self._whole[start:]
        else:
            self._start, self._memory = None, np.empty(capacity, np.uint8)

    @property
    def written(self) -> memoryview:
        """What was written since `restart`, not copied."""
        self._view = super().written
        return self._view

    def append(self, part: Part) -> None:
        """Add `part` to the frame; what was `written` here is there already."""
        start, end = self._done, self._done + len(part)
        if end > self._whole.size:
            self._grow(end + end // 4)
        stays = part is self._view and self._start == start
        if not stays:
            self._whole.data[start:end] = part
        self._done = end

    def finish(self) -> bytes:
        """The frame, not copied; nothing can be added to it."""
        self._view = memoryview(b"")
        self._memory = self._whole = np.empty(0, np.uint8)
        self._sink.truncate(self._done)
        return self._sink.getvalue()

    def _grow(self, size: int) -> None:
        # zeros that nobody wrote take no memory; nobody else holds them, so they are not copied
        self._sink = io.BytesIO(bytes(size))
        memory = self._sink.getbuffer()
        if size >= LARGE_FRAME_BYTES:
            # growing page by page would fault in each one by itself, and take longer than most codings
            advise_large_pages(memory)
        whole = np.frombuffer(memory, np.uint8)
        whole[: self._done] = self._whole[: self._done]
        self._whole, self._start = whole, None
