"""Questions to the state database: every one a read that waits for no commit."""

from __future__ import annotations

import json
import sqlite3
from typing import Protocol

from fedprune.errors import StoreError
from fedprune.ledger import Direction, Entry, Kind
from fedprune_server.store.records import (
    AssignmentRecord,
    ClientRecord,
    ReceiptRecord,
    Recovery,
    RoundRecord,
    RunRecord,
    RunState,
    VersionRecord,
    Work,
)
from fedprune_server.store.rows import Scalar, from_row

BYTES_TOPIC = "bytes"
AUDIT_TOPIC = "audit"
ACCEPTED_OF_ROUND = (
    "SELECT * FROM receipts WHERE run_id = ? AND round = ? AND kind = ? AND verdict = 'accepted'"
    " ORDER BY client, assignment_id"
)


class Questions(Protocol):
    """What answers: the database of a coordinator at work, or one that is only looked at."""

    def rows(self, sql: str, *values: Scalar) -> list[sqlite3.Row]:
        """All rows of the answer."""

    def one(self, sql: str, *values: Scalar) -> sqlite3.Row | None:
        """The first row of the answer."""

    def check_usable(self) -> None:
        """Raise `StoreError` when there will be no more answers."""


class Reading:
    """The half of a store that changes nothing."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def check_usable(self) -> None:
        """Raise what ended the store, if something did."""
        self._questions.check_usable()

    def clients(self) -> tuple[ClientRecord, ...]:
        """All clients ever seen, by index."""
        return tuple(from_row(ClientRecord, r) for r in self._questions.rows("SELECT * FROM clients ORDER BY client"))

    def run(self, run_id: str) -> RunRecord:
        """One run."""
        row = self._questions.one("SELECT * FROM runs WHERE run_id = ?", run_id)
        if row is None:
            raise StoreError("no such run", seen=run_id, expected=[r.run_id for r in self.runs()])
        return from_row(RunRecord, row)

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, in the order they were created."""
        return tuple(from_row(RunRecord, r) for r in self._questions.rows("SELECT * FROM runs ORDER BY rowid"))

    def unfinished_run(self) -> RunRecord | None:
        """The run to go on with, if any."""
        return next((run for run in self.runs() if run.state.unfinished), None)

    def shards(self, run_id: str) -> dict[int, int]:
        """Client index -> shard index."""
        rows = self._questions.rows("SELECT client, shard FROM shards WHERE run_id = ? ORDER BY shard", run_id)
        return {row["client"]: row["shard"] for row in rows}

    def latest_version(self, run_id: str) -> VersionRecord | None:
        """The last committed version."""
        row = self._questions.one("SELECT * FROM versions WHERE run_id = ? ORDER BY model DESC LIMIT 1", run_id)
        return None if row is None else from_row(VersionRecord, row)

    def version(self, run_id: str, model: int) -> VersionRecord:
        """One version by its model number."""
        row = self._questions.one("SELECT * FROM versions WHERE run_id = ? AND model = ?", run_id, model)
        if row is None:
            raise StoreError("no such version", party=run_id, seen=model)
        return from_row(VersionRecord, row)

    def reports(self, run_id: str) -> dict[int, str]:
        """Round -> report, ascending."""
        rows = self._questions.rows("SELECT round, body FROM reports WHERE run_id = ? ORDER BY round", run_id)
        return {row["round"]: row["body"] for row in rows}

    def next_assignment_id(self) -> int:
        """One more than any assignment id ever used."""
        return int(self._questions.rows("SELECT coalesce(max(assignment_id), 0) + 1 FROM assignments")[0][0])

    def round(self, run_id: str, round_: int) -> RoundRecord | None:
        """A round that was opened."""
        row = self._questions.one("SELECT * FROM rounds WHERE run_id = ? AND round = ?", run_id, round_)
        return None if row is None else from_row(RoundRecord, row)

    def assignment(self, run_id: str, assignment_id: int) -> AssignmentRecord | None:
        """What was assigned under this id."""
        if assignment_id >= 1 << 63:
            return None
        row = self._questions.one(
            "SELECT * FROM assignments WHERE run_id = ? AND assignment_id = ?", run_id, assignment_id
        )
        return None if row is None else from_row(AssignmentRecord, row)

    def assignments(self, run_id: str, round_: int) -> tuple[AssignmentRecord, ...]:
        """All work of a round, by assignment id."""
        rows = self._questions.rows(
            "SELECT * FROM assignments WHERE run_id = ? AND round = ? ORDER BY assignment_id", run_id, round_
        )
        return tuple(from_row(AssignmentRecord, row) for row in rows)

    def receipts(self, run_id: str, round_: int, kind: Work) -> tuple[ReceiptRecord, ...]:
        """The accepted results of a round so far, by client."""
        rows = self._questions.rows(ACCEPTED_OF_ROUND, run_id, round_, kind.value)
        return tuple(from_row(ReceiptRecord, row) for row in rows)

    def frozen(self, run_id: str, round_: int) -> frozenset[Work]:
        """The kinds of work of a round whose accepted set is closed."""
        rows = self._questions.rows("SELECT kind FROM frozen WHERE run_id = ? AND round = ?", run_id, round_)
        return frozenset(Work(row["kind"]) for row in rows)

    def entries(self, run_id: str) -> list[Entry]:
        """All byte entries of a run, as they were appended."""
        sql = "SELECT body FROM ledger WHERE topic = ? AND run_id = ? ORDER BY sequence"
        return [
            Entry(client=client, round=round_, direction=Direction(direction), kind=Kind(kind), bytes=count)
            for row in self._questions.rows(sql, BYTES_TOPIC, run_id)
            for client, round_, direction, kind, count in json.loads(row["body"])
        ]

    def audit(self, run_id: str) -> list[str]:
        """The events of the audit, as they were appended."""
        sql = "SELECT body FROM ledger WHERE topic = ? AND run_id = ? ORDER BY sequence"
        return [json.loads(row["body"]) for row in self._questions.rows(sql, AUDIT_TOPIC, run_id)]

    def _recovery(self, run_id: str) -> Recovery:
        row = self._questions.one(
            "SELECT * FROM rounds WHERE run_id = ? AND committed = 0 ORDER BY round DESC LIMIT 1", run_id
        )
        open_round = None if row is None else from_row(RoundRecord, row)
        number = 0 if open_round is None else open_round.round
        receipts = self._questions.rows(
            "SELECT * FROM receipts WHERE run_id = ? AND round = ? ORDER BY client, assignment_id", run_id, number
        )
        last = self._questions.rows("SELECT coalesce(max(round), 0) FROM rounds WHERE run_id = ?", run_id)[0][0]
        return Recovery(
            run=self.run(run_id),
            shards=self.shards(run_id),
            latest=self.latest_version(run_id),
            last_round=last,
            cohort=tuple(sorted(a.client for a in self.assignments(run_id, last) if a.kind is Work.TRAIN)),
            open_round=open_round,
            assignments=self.assignments(run_id, number) if open_round else (),
            receipts=tuple(from_row(ReceiptRecord, r) for r in receipts),
            frozen=self.frozen(run_id, number),
        )

    def _needed_blobs(self) -> set[str]:
        """Digests without which some run could not go on or be checked."""
        latest = (self.latest_version(run.run_id) for run in self.runs())
        versions = {digest for version in latest if version is not None for digest in version.blobs}
        # Statistics that clients measured of a round's version are folded after that was committed.
        waiting = self._questions.rows(
            "SELECT sha256 FROM receipts NATURAL JOIN rounds WHERE verdict = 'accepted' AND size > 0 AND (committed = 0"
            " OR kind = ? AND round = (SELECT max(round) FROM versions WHERE versions.run_id = receipts.run_id))",
            Work.REESTIMATE.value,
        )
        return versions | {row["sha256"] for row in waiting}

    def _is_named(self, digest: str) -> bool:
        """Whether a record names this blob."""
        return self._questions.one("SELECT 1 FROM blobs WHERE digest = ? AND kept = 1", digest) is not None

    def _awaited_work(self) -> set[tuple[str, int]]:
        """(run, assignment) of the work that can still get a receipt that counts."""
        states = [state.value for state in RunState if state.unfinished]
        rows = self._questions.rows(
            "SELECT a.run_id, a.assignment_id FROM assignments AS a JOIN runs USING (run_id)"
            " LEFT JOIN receipts USING (run_id, assignment_id) LEFT JOIN frozen AS f"
            " ON f.run_id = a.run_id AND f.round = a.round AND f.kind = a.kind"
            " WHERE receipts.verdict IS NULL AND f.round IS NULL AND state IN (?, ?)",
            *states,
        )
        return {(row["run_id"], row["assignment_id"]) for row in rows}
