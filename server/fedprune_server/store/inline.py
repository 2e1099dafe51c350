"""Small blobs live in the database: they become durable with the record that names them, in one sync instead of three.

A file costs a sync of its content and one of its directory, several milliseconds each, whatever its size; the update
of a small model is not worth that. Until a record names it, a small blob waits in memory: if the process ends before,
nobody was promised anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from threading import Lock

from fedprune_server.store.blobs import Blobs, Bytes
from fedprune_server.store.database import Database, Transaction

# What a database page cache takes in its stride; above it, a file is as fast.
INLINE_BYTES = 512 << 10


class InlineBlobs:
    """`Blobs` of at most `most` bytes in the database, larger ones in `files`."""

    def __init__(self, database: Database, files: Blobs, *, most: int = INLINE_BYTES) -> None:
        self._database = database
        self._files = files
        self._most = most
        self._waiting: dict[str, bytes] = {}
        self._lock = Lock()

    def put(self, data: Bytes) -> str:
        """Keep these bytes until a record names them; larger ones are durable on return."""
        if len(data) > self._most:
            return self._files.put(data)
        digest = hashlib.sha256(data).hexdigest()
        self.take(digest, bytes(data))
        return digest

    def take(self, digest: str, data: bytes) -> None:
        """`put` for bytes whose digest the caller has checked."""
        if len(data) > self._most:
            self._files.put(data)
        else:
            self._wait(digest, data)

    def open(self, digest: str) -> memoryview:
        with self._lock:
            waiting = self._waiting.get(digest)
        if waiting is not None:
            return memoryview(waiting)
        row = self._database.one("SELECT data FROM contents WHERE digest = ?", digest)
        return memoryview(row["data"]) if row is not None else self._files.open(digest)

    def exists(self, digest: str) -> bool:
        with self._lock:
            if digest in self._waiting:
                return True
        return self._is_kept(digest) or self._files.exists(digest)

    def delete(self, digest: str) -> int:
        with self._lock:
            waiting = self._waiting.pop(digest, b"")
        if not self._is_kept(digest):
            return len(waiting) or self._files.delete(digest)
        with self._database.transaction("collect-garbage", synced=False) as tx:
            return tx.delete_content(digest)

    def any_file(self, digests: Iterable[str]) -> bool:
        """Whether one of these is a file."""
        return any(self._files.exists(digest) for digest in digests)

    def digests(self) -> set[str]:
        kept = {row["digest"] for row in self._database.rows("SELECT digest FROM contents")}
        with self._lock:
            return kept | set(self._waiting) | self._files.digests()

    def staged(self, key: str) -> memoryview:
        return self._files.staged(key)

    def append(self, key: str, data: Bytes) -> None:
        self._files.append(key, data)

    def publish(self, key: str, digest: str) -> None:
        staged = self._files.staged(key)
        if len(staged) > self._most:
            self._files.publish(key, digest)
            return
        self._wait(digest, bytes(staged))
        self._files.discard(key)

    def discard(self, key: str) -> None:
        self._files.discard(key)

    def staged_keys(self) -> set[str]:
        return self._files.staged_keys()

    def keep(self, tx: Transaction, digest: str) -> None:
        """Write a small blob with the record that names it."""
        with self._lock:
            waiting = self._waiting.get(digest)
        if waiting is not None:
            tx.put_content(digest, waiting)

    def settle(self, digests: Iterable[str]) -> None:
        """The transaction that kept these is committed: they need to wait no more."""
        with self._lock:
            for digest in digests:
                self._waiting.pop(digest, None)

    def _wait(self, digest: str, data: bytes) -> None:
        with self._lock:
            self._waiting[digest] = data

    def _is_kept(self, digest: str) -> bool:
        return self._database.one("SELECT 1 FROM contents WHERE digest = ?", digest) is not None
