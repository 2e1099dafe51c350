"""What the authority has done, in one SQLite file: certificates, invitations, revocations, and a chain of events.

Commands and a running coordinator use it at the same time, so nothing is kept in memory: each call opens the file and
is one transaction. Every change is an event of the hash chain as well, so that what was done can be shown later.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from fedprune.errors import ConfigError, IdentityError, StoreError
from fedprune.ledger import GENESIS, link
from fedprune.pki.subject import Role

BUSY_TIMEOUT_S = 10.0
DDL = """
CREATE TABLE certificates (serial TEXT PRIMARY KEY, identity TEXT NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
    issued_at TEXT NOT NULL, not_after TEXT NOT NULL) STRICT;
CREATE TABLE invitations (token_sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL,
    expires_at TEXT NOT NULL, identity TEXT NOT NULL) STRICT;
CREATE TABLE revocations (identity TEXT PRIMARY KEY, revoked_at TEXT NOT NULL, reason TEXT NOT NULL) STRICT;
CREATE TABLE events (sequence INTEGER PRIMARY KEY, previous TEXT NOT NULL, hash TEXT NOT NULL, body TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate: whose, as what, from when to when (UTC)."""

    serial: str
    identity: str
    name: str
    role: Role
    issued_at: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """One invitation; `identity` is who used it, "" while nobody has."""

    token_sha256: str
    name: str
    role: Role
    expires_at: datetime
    identity: str = ""


class Register:
    """The register at `path`, made by `create`."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError("there is no register of certificates", seen=str(path), next_step=INIT)
        self._path = path

    @classmethod
    def create(cls, path: Path) -> Register:
        """A new, empty register."""
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(DDL)
        path.chmod(0o600)
        return cls(path)

    def issued(self) -> list[Issued]:
        """All certificates, oldest first."""
        return [_issued(row) for row in self._rows("SELECT * FROM certificates ORDER BY issued_at, serial")]

    def invited(self) -> list[Invited]:
        """All invitations, by name."""
        return [_invited(row) for row in self._rows("SELECT * FROM invitations ORDER BY name, expires_at")]

    def revoked(self) -> dict[str, str]:
        """Identity -> why it was revoked."""
        return {row["identity"]: row["reason"] for row in self._rows("SELECT * FROM revocations")}

    def events(self) -> list[dict[str, object]]:
        """What happened, oldest first. Raises `StoreError` when the chain of events does not hold."""
        found, previous = [], GENESIS
        for number, row in enumerate(self._rows("SELECT * FROM events ORDER BY sequence"), start=1):
            here = link(sequence=number, previous=previous, body=row["body"])
            if (row["sequence"], row["previous"], row["hash"]) != (number, previous, here):
                raise StoreError("the chain of events is broken", party=str(self._path), seen=f"row {number}")
            found.append(json.loads(row["body"]))
            previous = here
        return found

    def record(self, issued: Issued, *, why: str) -> None:
        """A certificate was issued."""
        with self._transaction() as tx:
            _insert(tx, "certificates", issued)
            _note(tx, why, issued.issued_at, issued)

    def invite(self, invited: Invited, now: datetime) -> None:
        """Somebody may enrol."""
        with self._transaction() as tx:
            _insert(tx, "invitations", invited)
            _note(tx, "invited", now, invited)

    def redeem(self, token_sha256: str, identity: str, now: datetime) -> Invited:
        """Use an invitation for this identity: once, though that one may ask again if its answer was lost. Raises
        `IdentityError`, with the same words for every reason, so that a guess learns nothing."""
        with self._transaction() as tx:
            row = tx.execute("SELECT * FROM invitations WHERE token_sha256 = ?", (token_sha256,)).fetchone()
            known = _invited(row) if row is not None else None
            if known is None or now > known.expires_at or known.identity not in ("", identity):
                raise IdentityError(
                    "the invitation is unknown, used up or expired", next_step="Ask for a new one: fedprune invite SITE"
                )
            if not known.identity:
                tx.execute("UPDATE invitations SET identity = ? WHERE token_sha256 = ?", (identity, known.token_sha256))
                _note(tx, "redeemed", now, {"identity": identity, "name": known.name, "role": known.role})
            return known

    def revoke(self, identity: str, reason: str, now: datetime) -> None:
        """From now on this key is nobody's here; asked again, nothing changes."""
        with self._transaction() as tx:
            done = tx.execute("INSERT OR IGNORE INTO revocations VALUES (?, ?, ?)", (identity, _text(now), reason))
            if done.rowcount:
                _note(tx, "revoked", now, {"identity": identity, "reason": reason})

    def note(self, what: str, now: datetime, **facts: object) -> None:
        """Something else that should not be forgotten."""
        with self._transaction() as tx:
            _note(tx, what, now, facts)

    def _rows(self, sql: str) -> list[sqlite3.Row]:
        with self._connected() as connection:
            return connection.execute(sql).fetchall()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.Error as error:
            raise StoreError("the register cannot be used", party=str(self._path), seen=str(error)) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


INIT = "Make it: fedprune certs init HOST"


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _plain(value: object) -> object:
    return _text(value) if isinstance(value, datetime) else str(value)


def _insert(tx: sqlite3.Connection, table: str, record: Issued | Invited) -> None:
    row = {key: _plain(value) for key, value in asdict(record).items()}
    tx.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def _note(tx: sqlite3.Connection, what: str, now: datetime, facts: Issued | Invited | dict[str, object]) -> None:
    known = facts if isinstance(facts, dict) else {f.name: getattr(facts, f.name) for f in fields(facts)}
    body = json.dumps({"at": _text(now), "what": what} | {key: _plain(value) for key, value in known.items()})
    last = tx.execute("SELECT sequence, hash FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
    sequence, previous = (last["sequence"] + 1, last["hash"]) if last is not None else (1, GENESIS)
    here = link(sequence=sequence, previous=previous, body=body)
    tx.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (sequence, previous, here, body))


def _issued(row: sqlite3.Row) -> Issued:
    return Issued(
        serial=row["serial"],
        identity=row["identity"],
        name=row["name"],
        role=Role(row["role"]),
        issued_at=datetime.fromisoformat(row["issued_at"]),
        not_after=datetime.fromisoformat(row["not_after"]),
    )


def _invited(row: sqlite3.Row) -> Invited:
    return Invited(
        token_sha256=row["token_sha256"],
        name=row["name"],
        role=Role(row["role"]),
        expires_at=datetime.fromisoformat(row["expires_at"]),
        identity=row["identity"],
    )
