"""A run's store, looked at: nothing is locked and nothing changed, and a coordinator may be at work on it."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from fedprune.errors import StoreError
from fedprune_server.store.reading import Reading
from fedprune_server.store.rows import Scalar
from fedprune_server.store.verify import opened, state_of


class Look(Reading, AbstractContextManager["Look"]):
    """What a run's folder, or a state directory, holds. Raises `StoreError` when there is no store in it."""

    def __init__(self, run_dir: Path) -> None:
        state = state_of(run_dir)
        self._connection = opened(state)
        self._files = state / "blobs"
        super().__init__(_Answers(self._connection))

    def blob(self, digest: str) -> memoryview:
        """The bytes of this digest. Raises `StoreError` when they are not kept any more."""
        row = self._questions.one("SELECT data FROM contents WHERE digest = ?", digest)
        if row is not None:
            return memoryview(row["data"])
        try:
            return memoryview((self._files / digest).read_bytes())
        except OSError as error:
            raise StoreError(
                "these bytes are not kept any more",
                seen=digest,
                next_step="A run keeps what clients sent with `keep_updates = true` under [run]",
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


class _Answers:
    """`Questions` to a connection that reads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Scalar) -> list[sqlite3.Row]:
        return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Scalar) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return found

    def check_usable(self) -> None:
        """It always is."""
