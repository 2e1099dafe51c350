"""Memory that is written from the front, and used again for the next segment.

Fresh pages cost more than everything that is done to them: a frame that asks for its memory once, and writes where it
will stay, is made in half the time.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fedprune.codec.base import Bytes, Part


class Room:
    """Bytes under construction; `restart` before each use, what was `written` is valid until the next."""

    __slots__ = ("_at", "_memory")

    def __init__(self) -> None:
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
