"""Updates stay decoded between their check and their fold, as far as there is room: a small one is read once.

A large update is read and decoded again when it is folded: memory is bounded by this room, not by models or clients.
What a coordinator that was restarted does not find here it decodes, to the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from fedprune.codec import Content, Packed, UpdateReader
from fedprune.tensor import TensorSpec

# The room for all updates of a round together, in bytes of decoded values and their places.
MOST_BYTES = 64 << 20
# An update of more values than that is decoded tensor by tensor, whenever it is asked for.
SMALL_VALUES = 1 << 20

Tensors = list[tuple[TensorSpec, Packed]]


@dataclass(frozen=True, slots=True)
class Opened:
    """An update: what it says, and how to go through its tensors, as often as wanted."""

    content: Content
    tensors: Callable[[], Iterator[tuple[TensorSpec, Packed]]]


@dataclass(slots=True)
class Decoded:
    """What is decoded of the updates of the open round, by the SHA-256 (hex) of their frames."""

    most_bytes: int = MOST_BYTES
    _kept: dict[str, Opened] = field(default_factory=dict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    def open(self, sha256: str, read: Callable[[], UpdateReader]) -> Opened:
        """The update of this digest; `read` reads its frame where it is not here. Raises `RemoteError` where a small
        one cannot be decoded."""
        kept = self._kept.get(sha256)
        if kept is not None:
            return kept
        reader = read()
        if reader.count > SMALL_VALUES:
            return Opened(reader.content, partial(iter, reader))
        tensors = list(reader)
        return self._keep(sha256, Opened(reader.content, partial(iter, tensors)), tensors)

    def _keep(self, sha256: str, opened: Opened, tensors: Tensors) -> Opened:
        count = sum(p.values.nbytes + (0 if p.indices is None else p.indices.nbytes) for _, p in tensors)
        with self._lock:
            if self._bytes + count <= self.most_bytes:
                self._kept[sha256] = opened
                self._bytes += count
        return opened

    def clear(self) -> None:
        """The round is folded."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
