"""One client's result while it arrives: bytes at offsets, hashed as they come, sealed when the digest is right.

What has arrived outlives the connection and the process: the staging key names assignment and digest, so whoever
begins again with the same digest goes on where it stopped. Only the newest `Upload` of an assignment may write; an
older connection that wakes up is told so.
"""

from __future__ import annotations

import hashlib
from threading import Lock

from fedprune.errors import DigestError, LimitError, RemoteError, StaleError, UnavailableError
from fedprune_server.store.blobs import Blobs, Bytes


class Upload:
    """Staged bytes of one assignment, at most `size` of them. Used by one thread at a time."""

    def __init__(self, blobs: Blobs, *, key: str, sha256: str, size: int, party: str) -> None:
        self.sha256 = sha256
        self.size = size
        self._blobs = blobs
        self._key = key
        self._party = party
        # Why it may write no more, once that is so.
        self._ended: RemoteError | None = None
        # An older connection's last chunk must be written, or refused, before a newer one looks at what is there.
        self._writing = Lock()
        self.sealed = False
        self._hash = hashlib.sha256()
        # Sealed by a call that broke before its receipt: then all of it is here.
        staged = blobs.open(sha256) if blobs.exists(sha256) else blobs.staged(key)
        if len(staged) > size:
            staged = memoryview(b"")
            blobs.discard(key)
        self._hash.update(staged)
        self.offset = len(staged)
        """Bytes that are here: send from this one on."""

    def append(self, offset: int, data: Bytes) -> int:
        """Take a chunk that starts at `offset`; returns the new offset. Bytes that are already here are skipped.

        Raises `RemoteError` for a gap, `LimitError` for more than was declared, `StaleError` when the client goes on
        elsewhere, `UnavailableError` when the round is closed, `StoreError` when the disk does not take it.
        """
        with self._writing:
            return self._append(offset, data)

    def _append(self, offset: int, data: Bytes) -> int:
        self._check_live()
        if offset > self.offset or offset < 0:
            raise RemoteError(
                "a chunk starts beyond what has arrived", party=self._party, seen=offset, expected=self.offset
            )
        if offset + len(data) > self.size:
            raise LimitError(
                "sent more bytes than announced", party=self._party, seen=offset + len(data), expected=self.size
            )
        new = memoryview(data)[self.offset - offset :]
        if new:
            self._blobs.append(self._key, new)
            self._hash.update(new)
            self.offset += len(new)
        return self.offset

    @property
    def complete(self) -> bool:
        """Whether all announced bytes are here."""
        return self.offset == self.size

    def seal(self) -> None:
        """Turn the staged bytes into the blob `sha256`. Sealing twice is sealing once.

        Raises `DigestError` when bytes are missing, or when they are not what was announced: those are thrown away.
        """
        with self._writing:
            self._check_live()
            self._seal()

    def _seal(self) -> None:
        if not self.complete:
            raise DigestError(
                "upload ended early", party=self._party, seen=f"{self.offset} bytes", expected=f"{self.size} bytes"
            )
        if self._hash.hexdigest() != self.sha256:
            self._blobs.discard(self._key)
            self._ended = DigestError(
                "upload is not what was announced",
                party=self._party,
                seen=self._hash.hexdigest(),
                expected=self.sha256,
                next_step="This result is given up: look at the memory and disk of that client",
            )
            raise self._ended
        if self._blobs.exists(self.sha256):
            self._blobs.discard(self._key)
        else:
            self._blobs.publish(self._key, self.sha256)
        self.sealed = True

    def replaced(self) -> None:
        """The client has begun again on another connection: this one may write no more."""
        self._end(StaleError("this upload goes on over another connection", party=self._party))

    def unwanted(self) -> None:
        """The round is closed: this one may write no more, and whoever begins again hears that it is too late."""
        self._end(UnavailableError("its round is closed", party=self._party, next_step="Begin again to be told so"))

    def _end(self, why: RemoteError) -> None:
        with self._writing:
            self._ended = self._ended or why

    def _check_live(self) -> None:
        if self._ended is not None:
            raise self._ended


def staging_key(run_id: str, assignment_id: int, sha256: str) -> str:
    """Where an upload is staged: the same for the same bytes of the same assignment, in every process."""
    return f"{run_id}-{assignment_id}-{sha256}"
