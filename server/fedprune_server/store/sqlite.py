"""Where a store lives: in a state directory, or in memory.

A state directory holds `state.db`, `blobs/`, `staging/` and `lock`, and serves one coordinator at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from fedprune.errors import StoreError
from fedprune_server.store.blobs import FileBlobs, MemoryBlobs
from fedprune_server.store.database import Database
from fedprune_server.store.rowstore import RowStore

DATABASE = "state.db"


class SqliteStore(RowStore):
    """The store in a state directory, which is created if need be.

    `durable` off: nothing is synced, for tests and for measuring what durability costs. `take_over`: go on although
    another process holds the directory; that one is fenced. `failpoint` is called with the name of each point where
    the tests crash a coordinator. Raises `StoreError` when the directory is held or cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        durable: bool = True,
        take_over: bool = False,
        failpoint: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.path = path
        self._held = _hold(path, take_over)
        database = Database(path / DATABASE, where=str(path), durable=durable, at=failpoint)
        super().__init__(database, FileBlobs(path, durable=durable, fail=database.fail, at=failpoint))

    def close(self) -> None:
        """Give the store back, and the directory with it."""
        super().close()
        self._held.close()


class MemoryStore(RowStore):
    """A store that ends with its process."""

    def __init__(self) -> None:
        database = Database(None, where="memory", durable=False, at=lambda name: None)
        super().__init__(database, MemoryBlobs())


def _hold(path: Path, take_over: bool) -> IO[str]:
    """Lock the directory for this process; the lock goes with it, however it ends."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (path / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not take_over:
                file.seek(0)
                holder = file.read() or "another process"
                file.close()
                raise StoreError(
                    "the state directory is in use",
                    party=str(path),
                    seen=holder,
                    next_step="End that coordinator first, or give this one another directory",
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
    except OSError as error:
        raise StoreError("cannot use the state directory", party=str(path), seen=error.strerror) from error
    return file
