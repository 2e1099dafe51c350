"""Where a store lives: in a state directory, or in memory.

A state directory holds `state.db`, `blobs/`, `staging/` and `lock`, and serves one coordinator at a time; while none
does, `state.seal` holds the digest of the database.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from fedprune.errors import StoreError
from fedprune_server.store.blobs import FileBlobs, MemoryBlobs
from fedprune_server.store.database import Database, End
from fedprune_server.store.inline import INLINE_BYTES, InlineBlobs
from fedprune_server.store.rowstore import RowStore

DATABASE = "state.db"
SEAL = "state.seal"


class SqliteStore(RowStore):
    """The store in a state directory, which is created if need be.

    `durable` off: nothing is synced, for tests and for measuring what durability costs. `take_over`: go on although
    another process holds the directory; that one is fenced. Blobs of at most `inline_bytes` live in the database.
    `failpoint` is called with the name of each point where
    the tests crash a coordinator. Raises `StoreError` when the directory is held or cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool = True,
        take_over: bool = False,
        inline_bytes: int = INLINE_BYTES,
        failpoint: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.path = path
        self._held = _hold(path, take_over)
        try:
            (path / SEAL).unlink(missing_ok=True)
            database = Database(path / DATABASE, where=str(path), durable=durable, at=failpoint)
            files = FileBlobs(path, durable=durable, fail=database.fail, at=failpoint)
            super().__init__(database, InlineBlobs(database, files, most=inline_bytes))
        except StoreError:
            self._held.close()
            raise

    def close(self) -> None:
        """Give the store back, and the directory with it. The closed database is sealed by its digest, so that
        `verify` notices every later change of the file. The seal is empty if a reader may change it yet."""
        end = self._let_go()
        if end is not End.FAILED:
            (self.path / SEAL).write_text(digest_of(self.path / DATABASE) if end is End.WHOLE else "")
        self._held.close()


class MemoryStore(RowStore):
    """A store that ends with its process."""

    def __init__(self) -> None:
        database = Database(None, where="memory", durable=False, at=lambda name: None)
        super().__init__(database, InlineBlobs(database, MemoryBlobs()))


def _hold(path: Path, take_over: bool) -> IO[str]:
    """Lock the directory for this process; the lock goes with it, however it ends."""
    lock = path / "lock"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _locked(lock)
        if file is None and take_over:
            # The holder keeps the lock of a file that no longer has this name: from here on, ours is the one to hold.
            lock.unlink(missing_ok=True)
            file = _locked(lock)
        if file is None:
            raise StoreError(
                "the state directory is in use",
                party=str(path),
                seen=lock.read_text() or "another process",
                next_step="End that coordinator first, or give this one another directory",
            )
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
    except OSError as error:
        raise StoreError("cannot use the state directory", party=str(path), seen=error.strerror) from error
    return file


def _locked(path: Path) -> IO[str] | None:
    """The open lock file; None when another process holds it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:
        file.close()
        raise
    return file


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(folder: Path, *, but: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 (hex) of all files below `folder` by relative name, without what is below the names in `but`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = {path.relative_to(folder): path for path in files}
    return {name.as_posix(): digest_of(path) for name, path in names.items() if name.parts[0] not in but}
