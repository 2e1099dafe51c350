"""Blobs as chunks and chunks as blobs: sans-IO, under limits, resumable at any offset.

What travels is sealed first: its size and SHA-256 are announced before the first byte, so that the receiver can
refuse before it allocates and continue after a break with nothing but an offset.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fedprune.errors import DigestError, LimitError, LocalError, RemoteError

MAX_CHUNK_BYTES = 1 << 20
# What a transfer begins with, and what it never goes below.
FIRST_CHUNK_BYTES = 1 << 16
SMALLEST_CHUNK_BYTES = 1 << 15
# A chunk that takes less than the one is followed by a larger one, one that takes more than the other by a smaller one.
QUICK_S, SLOW_S = 0.25, 5.0
# Up to here a result or a version may travel in one message, beside what else is said.
SMALL_BYTES = 1 << 19
MAX_MESSAGE_BYTES = 4 << 20
# What a client says: a chunk, or a model's signature. Each open call can hold that much of the coordinator's memory.
MAX_REQUEST_BYTES = MAX_CHUNK_BYTES + (1 << 16)

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What identifies a blob: `size` in bytes and `sha256` in hex."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0:
            raise RemoteError("a blob cannot have a negative size", seen=self.size)
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise RemoteError("not a SHA-256 in hex", seen=repr(self.sha256[:80]), expected="64 hex digits")


def seal(data: Bytes) -> Seal:
    """The seal of a blob."""
    return Seal(size=len(data), sha256=hashlib.sha256(data).hexdigest())


class Chunks:
    """A blob from `offset` on, cut as a link takes it: the first chunk has `first` bytes; behind one that was gone at once
    comes one of twice the size, up to `most` (itself at most 1 MiB), behind one that took long one of half of it.

    A large chunk costs both ends less for each byte, and on a slow link it is too long a time without an answer."""

    def __init__(self, data: Bytes, *, offset: int = 0, first: int, most: int) -> None:
        if not 0 < most <= MAX_CHUNK_BYTES:
            raise LocalError("chunk size out of range", seen=most, expected=f"1 to {MAX_CHUNK_BYTES}")
        if not 0 <= offset <= len(data):
            raise RemoteError("offset outside the blob", seen=offset, expected=f"0 to {len(data)}")
        self._view = memoryview(data)
        self._offset = offset
        self._bytes = min(max(1, first), most)
        self._most = most
        self._since_s: float | None = None

    def take(self, now_s: float) -> bytes:
        """The next chunk; empty when there is no more. The one before has been on its way since the last call; `now_s` is
        of any clock that only goes forward."""
        if self._since_s is not None:
            self._adapt(now_s - self._since_s)
        self._since_s = now_s
        chunk = bytes(self._view[self._offset : self._offset + self._bytes])
        self._offset += len(chunk)
        return chunk

    def _adapt(self, took_s: float) -> None:
        if took_s < QUICK_S:
            self._bytes = min(2 * self._bytes, self._most)
        elif took_s > SLOW_S:
            self._bytes = max(self._bytes // 2, min(SMALLEST_CHUNK_BYTES, self._bytes))


class Assembler:
    """Collects one announced blob. Memory is taken once, for the announced size, after the limit was checked."""

    def __init__(self, announced: Seal, *, max_bytes: int, party: str) -> None:
        if announced.size > max_bytes:
            raise LimitError(
                "announced more bytes than allowed", party=party, seen=announced.size, expected=f"at most {max_bytes}"
            )
        self.announced = announced
        self.offset = 0
        self._party = party
        self._buffer = bytearray(announced.size)
        self._digest = hashlib.sha256()

    def feed(self, chunk: bytes) -> None:
        """Append the next chunk. Raises `LimitError` when more arrives than was announced."""
        end = self.offset + len(chunk)
        if end > self.announced.size or len(chunk) > MAX_CHUNK_BYTES:
            raise LimitError(
                "sent more bytes than announced", party=self._party, seen=end, expected=self.announced.size
            )
        self._buffer[self.offset : end] = chunk
        self._digest.update(chunk)
        self.offset = end

    @property
    def complete(self) -> bool:
        """Whether all announced bytes are there."""
        return self.offset == self.announced.size

    def finish(self) -> memoryview:
        """The blob, read-only. Raises `DigestError` when it is cut short or is not what was announced."""
        if not self.complete:
            raise DigestError(
                "stream ended early", party=self._party, seen=f"{self.offset} bytes", expected=self.announced.size
            )
        if self._digest.hexdigest() != self.announced.sha256:
            raise DigestError(
                "digest does not match",
                party=self._party,
                seen=self._digest.hexdigest(),
                expected=self.announced.sha256,
                next_step="The transfer is given up: look at the memory and disks of both machines",
            )
        return memoryview(self._buffer).toreadonly()
