"""Content-addressed bytes: a blob's name is its SHA-256, so what a name gives can always be checked.

A blob is written beside its place, synced, renamed and its directory synced, before any record names it: a name in
the database is a promise that the bytes are there. Uploads grow in a staging area under a key of their own and become
blobs when their digest is right. Reads are memory maps: they cost no memory of ours.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Protocol

from fedprune.errors import StoreError

Bytes = bytes | bytearray | memoryview
BLOCK_BYTES = 1 << 20
PRIVATE = 0o600


class Blobs(Protocol):
    """Bytes by digest, and unfinished bytes by key. Raises `StoreError` when the disk does not do its part."""

    def put(self, data: Bytes) -> str:
        """Keep these bytes; returns their SHA-256 (hex). Durable once a record names them. Putting twice is once."""

    def open(self, digest: str) -> memoryview:
        """The bytes, read-only. Raises `StoreError` when there are none of this digest."""

    def exists(self, digest: str) -> bool:
        """Whether the bytes are here."""

    def delete(self, digest: str) -> int:
        """Forget a blob; returns the bytes freed, 0 when there was none."""

    def digests(self) -> set[str]:
        """All blobs that are here."""

    def staged(self, key: str) -> memoryview:
        """What has been staged under `key` so far, empty at first."""

    def append(self, key: str, data: Bytes) -> None:
        """Put more bytes behind what is staged under `key`."""

    def publish(self, key: str, digest: str) -> None:
        """Turn what is staged under `key` into the blob `digest`. The caller has checked the digest."""

    def discard(self, key: str) -> None:
        """Forget what is staged under `key`."""

    def staged_keys(self) -> set[str]:
        """All keys with staged bytes."""


class MemoryBlobs:
    """Blobs of a process that may forget: for tests and for runs that are not to leave a trace."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._staged: dict[str, bytearray] = {}

    def put(self, data: Bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._blobs.setdefault(digest, bytes(data))
        return digest

    def open(self, digest: str) -> memoryview:
        if digest not in self._blobs:
            raise _missing(digest)
        return memoryview(self._blobs[digest])

    def exists(self, digest: str) -> bool:
        return digest in self._blobs

    def delete(self, digest: str) -> int:
        return len(self._blobs.pop(digest, b""))

    def digests(self) -> set[str]:
        return set(self._blobs)

    def staged(self, key: str) -> memoryview:
        return memoryview(bytes(self._staged.get(key, b"")))

    def append(self, key: str, data: Bytes) -> None:
        self._staged.setdefault(key, bytearray()).extend(data)

    def publish(self, key: str, digest: str) -> None:
        self._blobs.setdefault(digest, bytes(self._staged.pop(key, b"")))

    def discard(self, key: str) -> None:
        self._staged.pop(key, None)

    def staged_keys(self) -> set[str]:
        return set(self._staged)


class FileBlobs:
    """Blobs as files: `blobs/<sha256>` and `staging/<key>` below `root`.

    With `durable` off nothing is synced: for tests, and for measuring what durability costs. `fail` is told of each
    `StoreError` that comes from the disk, `at` is called at the named points where a crash would hurt most.
    """

    def __init__(
        self,
        root: Path,
        *,
        durable: bool = True,
        fail: Callable[[StoreError], None] = lambda error: None,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._blobs = root / "blobs"
        self._staging = root / "staging"
        self._durable = durable
        self._fail = fail
        self._at = at
        with self._guarded("create the blob directories"):
            for folder in (self._blobs, self._staging):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A process that died between rename and sync left names that only the page cache knows.
            for folder in (self._blobs, root):
                self._sync_file(folder)

    def put(self, data: Bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if not self.exists(digest):
            # Of its own for each thread: two may put the same bytes at once, as raw steps and snapshots are.
            key = f"put-{os.getpid()}-{get_ident()}-{digest}"
            self.discard(key)
            self.append(key, data)
            self.publish(key, digest)
        return digest

    def open(self, digest: str) -> memoryview:
        try:
            with self._guarded("read a blob"):
                return _map(self._blobs / digest)
        except FileNotFoundError:
            raise _missing(digest) from None

    def exists(self, digest: str) -> bool:
        return (self._blobs / digest).is_file()

    def delete(self, digest: str) -> int:
        with self._guarded("delete a blob"):
            freed = _unlink(self._blobs / digest)
            self._at("blob-deleted")
        return freed

    def digests(self) -> set[str]:
        return {p.name for p in self._blobs.iterdir()}

    def staged(self, key: str) -> memoryview:
        try:
            with self._guarded("read a staged upload"):
                return _map(self._staging / key)
        except FileNotFoundError:
            return memoryview(b"")

    def append(self, key: str, data: Bytes) -> None:
        with self._guarded("write a blob"):
            self._at("blob-append")
            handle = os.open(self._staging / key, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
            try:
                _write_all(handle, memoryview(data))
            finally:
                os.close(handle)

    def publish(self, key: str, digest: str) -> None:
        staged = self._staging / key
        with self._guarded("make a blob durable"):
            staged.touch(PRIVATE)
            self._at("blob-before-sync")
            self._sync_file(staged)
            self._at("blob-before-rename")
            staged.replace(self._blobs / digest)
            self._at("blob-after-rename")
            self._sync_file(self._blobs)

    def discard(self, key: str) -> None:
        _unlink(self._staging / key)

    def staged_keys(self) -> set[str]:
        return {p.name for p in self._staging.iterdir()}

    def _sync_file(self, path: Path) -> None:
        if self._durable:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """A full disk or a failed sync ends the store: after it, nobody knows what the disk holds."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            trouble = StoreError(
                f"could not {doing}",
                party=str(self._blobs.parent),
                seen=error.strerror or str(error),
                next_step="Free space or mend the disk, then start the coordinator again: it goes on where it was",
            )
            self._fail(trouble)
            raise trouble from error


def _map(path: Path) -> memoryview:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _write_all(handle: int, data: memoryview) -> None:
    while data:
        data = data[os.write(handle, data[:BLOCK_BYTES]) :]


def _unlink(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _missing(digest: str) -> StoreError:
    return StoreError(
        "a blob is missing",
        seen=digest,
        next_step="Restore the state directory from a copy, or start a new run",
    )
