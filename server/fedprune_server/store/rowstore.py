"""The store's logic over a database and blobs, wherever those two live.

It decides nothing about rounds: it keeps what it is told, once, and refuses what contradicts it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

from fedprune.errors import DigestError, RemoteError, StoreError
from fedprune.framing import Seal
from fedprune.ledger import Entry
from fedprune_server.store.database import Database, End, Transaction
from fedprune_server.store.facts import (
    answer,
    end_round,
    freeze_set,
    is_frozen,
    name_blob,
    note_bytes,
    opened_round,
    receipt,
)
from fedprune_server.store.inline import InlineBlobs
from fedprune_server.store.reading import AUDIT_TOPIC, Reading
from fedprune_server.store.records import (
    AssignmentRecord,
    ClientRecord,
    ReceiptRecord,
    Recovery,
    RoundRecord,
    RunRecord,
    RunState,
    Submission,
    Verdict,
    VersionRecord,
    Work,
)
from fedprune_server.store.rows import to_row
from fedprune_server.store.underway import Underway
from fedprune_server.store.uploads import Upload, staging_key


class RowStore(Reading):
    """A `Store` over a `Database` and `Blobs`."""

    def __init__(self, database: Database, blobs: InlineBlobs) -> None:
        super().__init__(database)
        self._database = database
        self.blobs = blobs
        self.epoch = database.epoch
        self._underway = Underway(blobs, is_named=self._is_named)

    def close(self) -> None:
        """Give the store back."""
        self._let_go()

    def _let_go(self) -> End:
        return self._database.close()

    def client_index(self, identity: str) -> int:
        """The client's index, assigned at first sight."""
        known = self._database.one("SELECT client FROM clients WHERE identity = ?", identity)
        if known is not None:
            return int(known["client"])
        with self._database.transaction("add-client") as tx:
            row = tx.one("SELECT coalesce(max(client), -1) + 1 AS next FROM clients")
            assert row is not None
            tx.insert("clients", to_row(ClientRecord(client=row["next"], identity=identity)))
            return int(row["next"])

    def create_run(self, run: RunRecord) -> None:
        """Begin a run."""
        going = self.unfinished_run()
        if going is not None and run.state.unfinished:
            raise StoreError("a run is unfinished", seen=going.run_id, next_step="Resume it, or mark it as stopped")
        with self._database.transaction("create-run") as tx:
            tx.insert("runs", to_row(run))

    def set_run_state(self, run_id: str, state: RunState) -> None:
        """Say where the run stands."""
        with self._database.transaction("set-run-state") as tx:
            tx.replace("runs", to_row(self.run(run_id)) | {"state": state.value})

    def recover(self, run_id: str) -> Recovery:
        """What there is of an unfinished run, checked."""
        self._database.check()
        found = self._recovery(run_id)
        for digest in sorted(self._needed_blobs()):
            actual = hashlib.sha256(self.blobs.open(digest)).hexdigest()
            if actual != digest:
                raise StoreError("a blob is damaged", seen=actual, expected=digest, next_step="Restore it from a copy")
        return found

    def freeze_shards(self, run_id: str, shards: Mapping[int, int]) -> None:
        """Fix the shard index of each client."""
        known = self.shards(run_id)
        for client, shard in shards.items():
            if known.get(client, shard) != shard:
                raise StoreError(f"client {client} has another shard", seen=shard, expected=known[client])
        with self._database.transaction("freeze-shards", synced=False) as tx:
            for client, shard in sorted(shards.items()):
                if client not in known:
                    tx.insert("shards", {"run_id": run_id, "client": client, "shard": shard})

    def commit_version(
        self, record: VersionRecord, *, report_json: str = "", entries: Sequence[Entry] = (), synced: bool = True
    ) -> None:
        """Make a model the latest version; closes its round."""
        self._check_blobs(record.blobs)
        with self._database.transaction("commit-version", synced=synced) as tx:
            # Inside, because whoever is fenced should hear that first.
            latest = self.latest_version(record.run_id)
            if latest is not None and record.version.model <= latest.version.model:
                raise StoreError("versions only grow", seen=record.version, expected=f"above {latest.version}")
            tx.insert("versions", to_row(record))
            self._keep(tx, record.blobs)
            end_round(tx, record.run_id, record.round, report_json, entries)
        self.blobs.settle(record.blobs)

    def close_round(self, run_id: str, round_: int, *, report_json: str = "", entries: Sequence[Entry] = ()) -> None:
        """End a round that makes no new version."""
        with self._database.transaction("close-round") as tx:
            # Whoever comes later is too late: its receipt would promise that it counts.
            accepted = freeze_set(tx, run_id, round_, Work.TRAIN)
            if accepted:
                raise StoreError(f"round {round_} has updates that count", seen=len(accepted), expected="a version")
            end_round(tx, run_id, round_, report_json, entries)

    def put_report(self, run_id: str, round_: int, report_json: str) -> None:
        """Keep or replace the report of a round."""
        with self._database.transaction("put-report", synced=False) as tx:
            tx.replace("reports", {"run_id": run_id, "round": round_, "body": report_json})

    def record_files(self, run_id: str, digests: Mapping[str, str]) -> None:
        """Remember the digests of files of the run directory."""
        with self._database.transaction("record-files") as tx:
            for name, sha256 in sorted(digests.items()):
                tx.replace("files", {"run_id": run_id, "name": name, "sha256": sha256})

    def open_round(self, record: RoundRecord, assignments: Sequence[AssignmentRecord]) -> None:
        """Begin a round with its assignments."""
        with self._database.transaction("open-round", synced=False) as tx:
            tx.insert("rounds", to_row(record))
            for assignment in assignments:
                tx.insert("assignments", to_row(assignment))

    def extend_round(self, run_id: str, round_: int, deadline_s: float) -> None:
        """Give an open round another span."""
        with self._database.transaction("extend-round", synced=False) as tx:
            tx.replace("rounds", to_row(opened_round(tx, run_id, round_)) | {"deadline_s": deadline_s})

    def add_assignments(self, assignments: Sequence[AssignmentRecord]) -> None:
        """More work in a round that was opened."""
        with self._database.transaction("add-assignments", synced=False) as tx:
            for assignment in assignments:
                if is_frozen(tx, assignment.run_id, assignment.round, assignment.kind):
                    raise StoreError(f"round {assignment.round} is closed for work of kind {assignment.kind.value}")
                tx.insert("assignments", to_row(assignment))

    def begin_upload(
        self, run_id: str, assignment_id: int, *, client: int, sha256: str, size: int
    ) -> Upload | ReceiptRecord:
        """Where to put the client's result, or the receipt it already has."""
        announced = Seal(size=size, sha256=sha256)
        submission = Submission(assignment_id=assignment_id, client=client, sha256=sha256, size=size, examples=0)
        with self._database.transaction("begin-upload") as tx:
            met = answer(tx, run_id, submission)
        if isinstance(met, RemoteError):
            raise met
        if isinstance(met, ReceiptRecord):
            return met
        return self._underway.begin((run_id, assignment_id), announced, party=f"client {client}")

    def bring(self, run_id: str, assignment_id: int, data: bytes, *, sha256: str) -> None:
        """Keep a checked result that came whole until it is accepted."""
        self._underway.bring((run_id, assignment_id), sha256)
        self.blobs.take(sha256, data)

    def accept(self, run_id: str, submission: Submission) -> ReceiptRecord:
        """Make a sealed and validated upload count, once."""
        given = self.accept_many(run_id, [submission])[0]
        if isinstance(given, RemoteError):
            raise given
        return given

    def accept_many(self, run_id: str, submissions: Sequence[Submission]) -> list[ReceiptRecord | RemoteError]:
        """`accept` for several in one transaction."""
        digests = [submission.sha256 for submission in submissions]
        with self._underway.accepting(digests), self._database.transaction("accept") as tx:
            answers = [self._accept(tx, run_id, submission) for submission in submissions]
        self.blobs.settle(digests)
        self._underway.over([(run_id, submission.assignment_id) for submission in submissions])
        return answers

    def _accept(self, tx: Transaction, run_id: str, submission: Submission) -> ReceiptRecord | RemoteError:
        work = answer(tx, run_id, submission)
        if not isinstance(work, AssignmentRecord):
            return work
        if submission.size and not self.blobs.exists(submission.sha256):
            # The client began again with other bytes meanwhile; that is nobody else's trouble.
            return DigestError("the result is not here any more", party=f"client {submission.client}")
        if submission.size:
            self._keep(tx, [submission.sha256])
        given = receipt(work, submission, Verdict.ACCEPTED, "")
        tx.insert("receipts", to_row(given))
        if submission.signed:
            tx.note(AUDIT_TOPIC, run_id, submission.signed)
        return given

    def freeze(self, run_id: str, round_: int, kind: Work = Work.TRAIN) -> tuple[ReceiptRecord, ...]:
        """Close the accepted set of a round and give it, by client."""
        with self._database.transaction("freeze", synced=False) as tx:
            return tuple(freeze_set(tx, run_id, round_, kind))

    def append_entries(self, run_id: str, entries: Sequence[Entry]) -> None:
        """Account for bytes outside a commit."""
        with self._database.transaction("append-entries", synced=False) as tx:
            note_bytes(tx, run_id, entries)

    def append_audit(self, run_id: str, body: str) -> None:
        """Keep an event of the audit."""
        with self._database.transaction("append-audit", synced=False) as tx:
            tx.note(AUDIT_TOPIC, run_id, body)

    def collect_garbage(self, keep: Collection[str] = ()) -> int:
        """Delete what nobody needs any more."""
        awaited = self._awaited_work()
        self._underway.end(but=awaited)
        # No commit begins to name what is about to be deleted.
        with self._underway.lock:
            unnamed = self.blobs.digests() - self._underway.digests - set(keep)
            freed = self._delete(sorted(unnamed - self._needed_blobs()))
            # Those that are awaited now, and those that have begun since we looked.
            keys = tuple(staging_key(run, assignment, "") for run, assignment in awaited | self._underway.keys)
            for key in self.blobs.staged_keys():
                if not key.startswith(keys):
                    self.blobs.discard(key)
        return freed

    def _delete(self, doomed: Sequence[str]) -> int:
        # A file that goes must not be missed after a power cut; what lives in the database goes with its record.
        with self._database.transaction("collect-garbage", synced=self.blobs.any_file(doomed)) as tx:
            for digest in doomed:
                if tx.one("SELECT 1 FROM blobs WHERE digest = ? AND kept = 1", digest):
                    tx.replace("blobs", {"digest": digest, "kept": 0})
            freed = {digest: tx.delete_content(digest) for digest in doomed}
        return sum(freed[digest] or self.blobs.delete(digest) for digest in doomed)

    def _keep(self, tx: Transaction, digests: Collection[str]) -> None:
        for digest in digests:
            name_blob(tx, digest)
            self.blobs.keep(tx, digest)

    def _check_blobs(self, digests: Collection[str]) -> None:
        for digest in digests:
            if not self.blobs.exists(digest):
                raise StoreError("a record names a blob that is not here", seen=digest)
