"""The state database: one file, one writer, one chain.

Every change is a transaction that first looks whether this process is still the writer (`epoch`), then writes rows,
and with each row a link of the hash chain. SQLite's `synchronous=FULL` syncs the log at every commit, so what was
committed survives a power cut. A failed transaction that is not the caller's fault ends the store: going on after a
full disk or a failed sync is how data gets lost.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from threading import RLock

from fedprune.errors import StoreError
from fedprune.ledger import GENESIS, link
from fedprune_server.store.rows import Row, Scalar, canonical
from fedprune_server.store.schema import DDL, FACTS, FORMAT

BUSY_TIMEOUT_S = 10.0
# From so many pages of log (16 MiB) on a synced commit folds it into the file, which is two syncs more. Rows that were
# changed since the last time go over once, so the rarer the cheaper; all of the log is read when a store is opened.
FOLD_PAGES = 4000
# Rows at the end of the chain that are checked whenever a store is opened; `verify` checks them all.
TAIL_ROWS = 1000


class End(Enum):
    """How a database was left: by a failure; in order, but somebody reads on, and whoever closes the file last folds the
    rest of the log in; or in order, in a file that will not change."""

    FAILED = auto()
    READ = auto()
    WHOLE = auto()


class Database:
    """Rows in tables and links in the chain. `where` names the store in messages."""

    def __init__(self, path: Path | None, *, where: str, durable: bool, at: Callable[[str], None]) -> None:
        self._where = where
        self._at = at
        self._lock = RLock()
        self._failed: StoreError | None = None
        self._writer = f"process {os.getpid()} on {socket.gethostname()}"
        self._durable = durable
        self._synced = True
        self._connections: list[sqlite3.Connection] = []
        try:
            with self._reported("open the database"):
                self._write = self._connect(path, durable)
                self._create()
                # A second connection lets readers go on while a commit waits for the disk.
                self._read = self._write if path is None else self._connect(path, durable)
                self._read_lock = self._lock if path is None else RLock()
                self.epoch = self._take_over()
                self._head = self._read_head()
        except StoreError:
            self._disconnect()
            raise

    def _connect(self, path: Path | None, durable: bool) -> sqlite3.Connection:
        """A connection in WAL mode that begins no transaction on its own."""
        name = ":memory:" if path is None else str(path)
        connection = sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        connection.execute("PRAGMA foreign_keys = ON")
        # Some builds of SQLite write zeros over what is deleted, which takes longer than it took to write it.
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()

    def _create(self) -> None:
        tables = self._write.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'table'").fetchone()[0]
        if not tables:
            first = f"INSERT INTO meta VALUES (1, {FORMAT}, 0, '', 0, '{GENESIS}');"
            self._write.executescript(f"BEGIN IMMEDIATE; {DDL} {first} COMMIT;")
        found = self._write.execute("SELECT format FROM meta").fetchone()[0]
        if found != FORMAT:
            raise StoreError("a store of another format", party=self._where, seen=found, expected=FORMAT)

    def _take_over(self) -> int:
        self._write.execute("BEGIN IMMEDIATE")
        self._write.execute("UPDATE meta SET epoch = epoch + 1, writer = ?", (self._writer,))
        epoch = self._write.execute("SELECT epoch FROM meta").fetchone()[0]
        self._write.execute("COMMIT")
        return int(epoch)

    def _read_head(self) -> tuple[int, str]:
        row = self._write.execute("SELECT sequence, hash FROM ledger ORDER BY sequence DESC LIMIT 1").fetchone()
        return (row["sequence"], row["hash"]) if row else (0, GENESIS)

    @contextmanager
    def transaction(self, name: str, *, synced: bool = True) -> Iterator[Transaction]:
        """All or nothing. Raises `StoreError` when the disk, another writer or a key does not allow it.

        Without `synced` a power cut may undo it; the next synced one makes it durable too, because the log keeps its
        order. That is enough for whatever nobody outside was told, and saves a wait for the disk.

        `name` says what is being done, in words joined by hyphens; a crash can be tried at `NAME-before-commit` and
        `NAME-after-commit`.
        """
        with self._lock:
            self.check_usable()
            head = self._head
            with self._reported(name.replace("-", " ")):
                try:
                    self._sync_commits(synced)
                    self._write.execute("BEGIN IMMEDIATE")
                    self._check_still_writer()
                    yield Transaction(self, self._write)
                    if self._head != head:
                        self._write.execute("UPDATE meta SET links = ?, head = ?", self._head)
                    self._at(f"{name}-before-commit")
                    self._write.execute("COMMIT")
                finally:
                    if self._write.in_transaction:
                        self._head = head
                        self._write.execute("ROLLBACK")
                self._at(f"{name}-after-commit")

    def _sync_commits(self, synced: bool) -> None:
        """Sync the commits that follow, or none of them: then no log is folded into the file either, which syncs both."""
        if self._durable and synced != self._synced:
            self._write.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
            self._write.execute(f"PRAGMA wal_autocheckpoint = {FOLD_PAGES if synced else 0}")
            self._synced = synced

    def append_link(self, topic: str, run_id: str, body: str) -> None:
        """One more row of the chain; only inside a transaction."""
        sequence, previous = self._head[0] + 1, self._head[1]
        digest = link(sequence=sequence, previous=previous, body=chained_text(topic, run_id, body))
        row = (sequence, previous, digest, topic, run_id, body)
        self._write.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?)", row)
        self._head = (sequence, digest)

    def rows(self, sql: str, *values: Scalar) -> list[sqlite3.Row]:
        """Answer a question, without waiting for a commit that is under way."""
        with self._read_lock, self._reported("read the database"):
            self.check_usable()
            return self._read.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Scalar) -> sqlite3.Row | None:
        """The first row of the answer."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def check(self) -> None:
        """Look for damage in the file and in the chain's tail. Raises `StoreError`."""
        answer = self.rows("PRAGMA quick_check(1)")[0][0]
        if answer != "ok":
            raise StoreError("the database is damaged", party=self._where, seen=answer, next_step="Restore it")
        tail = self.rows("SELECT * FROM ledger ORDER BY sequence DESC LIMIT ?", TAIL_ROWS)
        for sequence, problem in broken_links(reversed(tail), whole=False):
            raise StoreError(f"the ledger is damaged at row {sequence}: {problem}", party=self._where)

    def fail(self, error: StoreError) -> None:
        """End the store: every later call raises `error`."""
        self._failed = self._failed or error

    def check_usable(self) -> None:
        """Raise what ended the store, if something did."""
        if self._failed is not None:
            raise self._failed

    def close(self) -> End:
        """Fold the log into the file and let go of it."""
        with self._lock, self._read_lock:
            end = End.FAILED if self._failed is not None else self._fold()
            self.fail(StoreError("the store is closed", party=self._where))
            self._disconnect()
            return end

    def _fold(self) -> End:
        is_read, _, _ = self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return End.READ if is_read else End.WHOLE

    def _check_still_writer(self) -> None:
        epoch, writer = self._write.execute("SELECT epoch, writer FROM meta").fetchone()
        if epoch != self.epoch:
            trouble = StoreError(
                "another coordinator has taken over this store",
                party=self._where,
                seen=f"epoch {epoch}, {writer}",
                expected=f"epoch {self.epoch}",
                next_step="End this coordinator; the other one goes on",
            )
            self.fail(trouble)
            raise trouble

    @contextmanager
    def _reported(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StoreError(
                f"could not {doing}: it contradicts what is stored", party=self._where, seen=str(error)
            ) from error
        except (sqlite3.Error, OSError) as error:
            trouble = StoreError(
                f"could not {doing}", party=self._where, seen=str(error), next_step=self._remedy(error)
            )
            self.fail(trouble)
            raise trouble from error

    def _remedy(self, error: sqlite3.Error | OSError) -> str:
        """What a person does about it. Whoever stopped in the middle of a write keeps the lock until it goes on."""
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{self._holder()} is in the middle of a write: end it, then start this one again"
        return "Free space or mend the disk, then start the coordinator again: it goes on where it was"

    def _holder(self) -> str:
        """Who wrote last, as far as can be read without the lock."""
        try:
            return str(self._write.execute("SELECT writer FROM meta").fetchone()[0])
        except (sqlite3.Error, TypeError):
            return "another process"


class Transaction:
    """Writes rows; each is also a link of the chain."""

    def __init__(self, database: Database, connection: sqlite3.Connection) -> None:
        self._database = database
        self._connection = connection

    def one(self, sql: str, *values: Scalar) -> sqlite3.Row | None:
        """The first row of an answer that sees this transaction's own writes."""
        row: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def all(self, sql: str, *values: Scalar) -> list[sqlite3.Row]:
        """All rows of such an answer."""
        return self._connection.execute(sql, values).fetchall()

    def insert(self, table: str, row: Row) -> None:
        """A new fact."""
        self._put("INSERT", table, row)

    def replace(self, table: str, row: Row) -> None:
        """A fact instead of the one with the same key."""
        keys = FACTS[table]
        changed = [column for column in row if column not in keys]
        self._put("INSERT", table, row, f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET " + _excluded(changed))

    def _put(self, verb: str, table: str, row: Row, conflict: str = "") -> None:
        columns, marks = ", ".join(row), ", ".join("?" * len(row))
        self._connection.execute(f"{verb} INTO {table} ({columns}) VALUES ({marks}){conflict}", tuple(row.values()))
        self.note(table, str(row.get("run_id", "")), row)

    def put_content(self, digest: str, data: bytes) -> None:
        """A small blob; it needs no link, since its digest is one of a record."""
        self._connection.execute("INSERT OR IGNORE INTO contents VALUES (?, ?)", (digest, data))

    def delete_content(self, digest: str) -> int:
        """The small blob goes; returns its size."""
        row = self.one("DELETE FROM contents WHERE digest = ? RETURNING length(data) AS size", digest)
        return 0 if row is None else int(row["size"])

    def note(self, topic: str, run_id: str, body: object) -> None:
        """A link of the chain without a row in a table."""
        self._database.append_link(topic, run_id, canonical(body))


def _excluded(columns: Sequence[str]) -> str:
    return ", ".join(f"{column} = excluded.{column}" for column in columns)


def chained_text(topic: str, run_id: str, body: str) -> str:
    """What a link's hash covers of its row, beside its number and the hash before it."""
    return canonical([topic, run_id, body])


def broken_links(rows: Iterator[sqlite3.Row], *, whole: bool) -> Iterator[tuple[int, str]]:
    """(sequence, problem) for each row of the chain that does not follow from the one before it. With `whole` the
    first row must be the chain's first."""
    last: tuple[int, str] | None = (0, GENESIS) if whole else None
    for row in rows:
        body = chained_text(str(row["topic"]), str(row["run_id"]), str(row["body"]))
        if last is not None and row["sequence"] != last[0] + 1:
            yield row["sequence"], f"rows {last[0] + 1} to {row['sequence'] - 1} are missing"
        elif last is not None and row["previous"] != last[1]:
            yield row["sequence"], "it does not follow from the row before it"
        elif row["hash"] != link(sequence=row["sequence"], previous=row["previous"], body=body):
            yield row["sequence"], "its content is not what was written"
        last = (row["sequence"], row["hash"])
