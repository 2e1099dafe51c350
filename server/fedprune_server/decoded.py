"""Updates stay decoded between their check and their fold, as far as there is room: a small one is decoded once.

A large update is decoded again when it is folded: memory is bounded by this room, not by models or clients. What a
coordinator that was restarted does not find here it decodes, to the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from fedprune.codec import Packed, UpdateReader
from fedprune.tensor import TensorSpec

# The room for all updates of a round together, in bytes of decoded values and their places.
MOST_BYTES = 64 << 20
# An update of more values than that is decoded tensor by tensor, whenever it is asked for.
SMALL_VALUES = 1 << 20

Tensors = list[tuple[TensorSpec, Packed]]


@dataclass(slots=True)
class Decoded:
    """What is decoded of the updates of the open round, by the SHA-256 (hex) of their frames."""

    most_bytes: int = MOST_BYTES
    _kept: dict[str, Tensors] = field(default_factory=dict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    def opener(self, sha256: str, reader: UpdateReader) -> Callable[[], Iterator[tuple[TensorSpec, Packed]]]:
        """How to go through the tensors of this frame, as often as wanted. Raises `RemoteError` where a small one is
        decoded here and cannot be."""
        kept = self._kept.get(sha256)
        if kept is None and reader.count <= SMALL_VALUES:
            kept = self._keep(sha256, list(reader))
        return partial(iter, reader if kept is None else kept)

    def _keep(self, sha256: str, tensors: Tensors) -> Tensors:
        count = sum(p.values.nbytes + (0 if p.indices is None else p.indices.nbytes) for _, p in tensors)
        with self._lock:
            if self._bytes + count <= self.most_bytes:
                self._kept[sha256] = tensors
                self._bytes += count
        return tensors

    def clear(self) -> None:
        """The round is folded."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0
