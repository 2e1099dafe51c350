"""Is everything that a run left behind still what was written? Answers for chain, tables, blobs and files.

The chain is recomputed from its first row; the tables must be what the chain says was put into them; every blob must
have its name as its digest, and every blob that a record needs must be there; the files of the run directory must be
the ones that were recorded. Nothing is changed, and nothing is taken on trust but the recomputed hashes themselves:
who can rewrite the whole directory can make it consistent, so keep the last hash elsewhere if that is a worry.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedprune.errors import StoreError
from fedprune.ledger import GENESIS
from fedprune_server.store.database import broken_links
from fedprune_server.store.rows import canonical
from fedprune_server.store.schema import FACTS
from fedprune_server.store.sqlite import DATABASE, SEAL, digest_of

STATE = "state"
# How many problems of one sort are listed before the rest is only counted.
LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What was checked and what is wrong: nothing, when `problems` is empty.

    `head` is the hash of the chain's last row. `notes` are limits of this check, not faults.
    """

    head: str
    links: int
    blobs: int
    files: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.problems


def verify(run_dir: Path) -> Findings:
    """Check a run directory, or the state directory itself. Raises `StoreError` when there is no store in it."""
    state = state_of(run_dir)
    check = _Check(run_dir, state)
    check.everything()
    return Findings(
        head=check.head,
        links=check.links,
        blobs=check.blobs,
        files=check.files,
        problems=tuple(check.problems),
        notes=tuple(check.notes),
    )


def opened(state: Path) -> sqlite3.Connection:
    """The database of a state directory, to read only."""
    path = state / DATABASE
    log = path.with_name(path.name + "-wal")
    # A closed database is read as the bytes it is; one with a log is read as SQLite would after a crash.
    mode = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def state_of(run_dir: Path) -> Path:
    """The state directory in a run's, or the one that is named itself. Raises `StoreError` when there is none."""
    state = run_dir / STATE if (run_dir / STATE / DATABASE).exists() else run_dir
    if not (state / DATABASE).exists():
        raise StoreError("no run here", party=str(run_dir), next_step="Name the directory of a run, runs/NAME")
    return state


class _Check:
    """One pass over a state directory."""

    def __init__(self, run_dir: Path, state: Path) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.head, self.links, self.blobs, self.files = GENESIS, 0, 0, 0
        self._run_dir = run_dir
        self._state = state

    def everything(self) -> None:
        """Check all there is; what cannot be read is a problem, not the end."""
        self._seal()
        needed: set[str] = set()
        small: dict[str, str] = {}
        try:
            with closing(opened(self._state)) as database:
                # One look at everything, also while a coordinator writes.
                database.execute("BEGIN")
                self._database(database)
                needed = _kept(database)
                rows = database.execute("SELECT digest, data FROM contents")
                small = {row["digest"]: hashlib.sha256(row["data"]).hexdigest() for row in rows}
                self._recorded(database)
        except (sqlite3.Error, ValueError, TypeError, LookupError) as error:  # damage can turn text into anything
            self.problems.append(f"{DATABASE}: cannot be read: {error}")
        self._blobs(needed, small)

    def _seal(self) -> None:
        try:
            sealed = (self._state / SEAL).read_text(errors="replace")
        except FileNotFoundError:
            self.notes.append("the store is open or was not closed in order: unused parts of its file are not checked")
            return
        if not sealed:
            self.notes.append("the store was read while it was closed: unused parts of its file are not checked")
        elif sealed != digest_of(self._state / DATABASE):
            self.problems.append(f"{DATABASE}: is not the file that was closed")

    def _database(self, database: sqlite3.Connection) -> None:
        self._list(DATABASE, (row[0] for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"))
        chain = database.execute("SELECT * FROM ledger ORDER BY sequence")
        self._list("ledger", (f"row {number}: {what}" for number, what in broken_links(chain, whole=True)))
        self._end_of_chain(database)
        self._tables(database)
        self._accepted_sets(database)

    def _end_of_chain(self, database: sqlite3.Connection) -> None:
        last = database.execute("SELECT sequence, hash FROM ledger ORDER BY sequence DESC LIMIT 1").fetchone()
        if last is not None:
            self.links, self.head = last["sequence"], last["hash"]
        meta = database.execute("SELECT links, head FROM meta").fetchone()
        if tuple(meta) != (self.links, self.head):
            self.problems.append(f"ledger: ends at row {self.links}, but row {meta['links']} was written")

    def _tables(self, database: sqlite3.Connection) -> None:
        written: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {table: {} for table in FACTS}
        for row in database.execute("SELECT topic, body FROM ledger ORDER BY sequence"):
            if row["topic"] in FACTS:
                body = json.loads(row["body"])
                written[row["topic"]][tuple(body[key] for key in FACTS[row["topic"]])] = body
        for table, keys in FACTS.items():
            rows = (dict(row) for row in database.execute(f"SELECT * FROM {table}"))
            found = {tuple(row[key] for key in keys): row for row in rows}
            self._list(table, _differences(written[table], found))

    def _accepted_sets(self, database: sqlite3.Connection) -> None:
        for frozen in database.execute("SELECT * FROM frozen"):
            members = database.execute(
                "SELECT assignment_id, sha256 FROM receipts WHERE run_id = ? AND round = ? AND kind = ?"
                " AND verdict = 'accepted' ORDER BY client, assignment_id",
                (frozen["run_id"], frozen["round"], frozen["kind"]),
            )
            listed = canonical([[row["assignment_id"], row["sha256"]] for row in members])
            if hashlib.sha256(listed.encode()).hexdigest() != frozen["accepted"]:
                self.problems.append(f"receipts: the accepted set of round {frozen['round']} is not the frozen one")

    def _blobs(self, needed: set[str], small: dict[str, str]) -> None:
        files: dict[str, str] = {}
        for path in sorted((self._state / "blobs").glob("*")):
            with suppress(FileNotFoundError):  # a coordinator at work has just let it go
                files[path.name] = digest_of(path)
        self.blobs = len(files) + len(small)
        missing = self._still_needed(needed - files.keys() - small.keys())
        self._list("blobs", (f"{name} is missing" for name in sorted(missing)))
        for found in (files, small):
            self._list("blobs", (f"{name} has other content" for name, actual in found.items() if actual != name))

    def _still_needed(self, missing: set[str]) -> set[str]:
        """Without what a coordinator at work has let go since we looked."""
        if not missing:
            return missing
        try:
            with closing(opened(self._state)) as database:
                return missing & _kept(database)
        except sqlite3.Error:  # damaged, which was said before
            return missing

    def _recorded(self, database: sqlite3.Connection) -> None:
        for row in database.execute("SELECT name, sha256 FROM files ORDER BY name"):
            self.files += 1
            path = self._run_dir / row["name"]
            if not path.is_file():
                self.problems.append(f"{row['name']}: is missing")
            elif digest_of(path) != row["sha256"]:
                self.problems.append(f"{row['name']}: is not the file that was written")

    def _list(self, where: str, found: Iterator[str]) -> None:
        problems = list(found)
        self.problems += [f"{where}: {what}" for what in problems[:LISTED]]
        if len(problems) > LISTED:
            self.problems.append(f"{where}: and {len(problems) - LISTED} more")


def _kept(database: sqlite3.Connection) -> set[str]:
    """The blobs that must be there."""
    return {row["digest"] for row in database.execute("SELECT digest FROM blobs WHERE kept = 1")}


def _differences(
    written: dict[tuple[Any, ...], dict[str, Any]], found: dict[tuple[Any, ...], dict[str, Any]]
) -> Iterator[str]:
    for key in written.keys() - found.keys():
        yield f"row {_named(key)} is missing"
    for key in found.keys() - written.keys():
        yield f"row {_named(key)} was never written"
    for key in written.keys() & found.keys():
        if written[key] != found[key]:
            yield f"row {_named(key)} was changed"


def _named(key: tuple[Any, ...]) -> str:
    return "/".join(str(part) for part in key)
