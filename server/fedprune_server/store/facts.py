"""What a transaction does to the tables, in the words of a round: answers, receipts, the end of a round."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fedprune.errors import DuplicateError, RemoteError, StaleError, StoreError
from fedprune.ledger import Entry
from fedprune_server.store.database import Transaction
from fedprune_server.store.reading import ACCEPTED_OF_ROUND, BYTES_TOPIC
from fedprune_server.store.records import (
    AssignmentRecord,
    ReceiptRecord,
    RoundRecord,
    Submission,
    Verdict,
    Work,
)
from fedprune_server.store.rows import canonical, from_row, to_row


def answer(tx: Transaction, run_id: str, submission: Submission) -> AssignmentRecord | ReceiptRecord | RemoteError:
    """What a submission meets: open work, a receipt (maybe a stale one, stored just now), or a refusal."""
    party = f"client {submission.client}"
    row = tx.one("SELECT * FROM assignments WHERE run_id = ? AND assignment_id = ?", run_id, submission.assignment_id)
    if row is None or row["client"] != submission.client:
        return StaleError("this work was never given to it", party=party, seen=f"assignment {submission.assignment_id}")
    assignment = from_row(AssignmentRecord, row)
    given = tx.one("SELECT * FROM receipts WHERE run_id = ? AND assignment_id = ?", run_id, assignment.assignment_id)
    if given is not None:
        return _repeat(from_row(ReceiptRecord, given), submission, party)
    if not is_frozen(tx, run_id, assignment.round, assignment.kind):
        return assignment
    stale = receipt(assignment, submission, Verdict.STALE, f"round {assignment.round} is closed")
    tx.insert("receipts", to_row(stale))
    return stale


def _repeat(receipt: ReceiptRecord, submission: Submission, party: str) -> ReceiptRecord | RemoteError:
    if receipt.sha256 == submission.sha256:
        return receipt
    return DuplicateError(
        f"assignment {receipt.assignment_id} has its receipt for other bytes",
        party=party,
        seen=submission.sha256,
        expected=receipt.sha256,
        next_step="Drop this result; the first one counts",
    )


def receipt(work: AssignmentRecord, submission: Submission, verdict: Verdict, reason: str) -> ReceiptRecord:
    """The answer to this submission."""
    return ReceiptRecord(
        run_id=work.run_id,
        assignment_id=work.assignment_id,
        round=work.round,
        client=work.client,
        kind=work.kind,
        verdict=verdict,
        reason=reason,
        sha256=submission.sha256,
        size=submission.size,
        examples=submission.examples,
        metrics_json=submission.metrics_json,
        work_s=submission.work_s,
        residual_norm=submission.residual_norm,
    )


def is_frozen(tx: Transaction, run_id: str, round_: int, kind: Work) -> bool:
    """Whether the accepted set of this round and kind of work is closed."""
    sql = "SELECT 1 FROM frozen WHERE run_id = ? AND round = ? AND kind = ?"
    return tx.one(sql, run_id, round_, kind.value) is not None


def freeze_set(tx: Transaction, run_id: str, round_: int, kind: Work) -> list[ReceiptRecord]:
    """Close the accepted set of a round; asked again, it is the same one."""
    rows = tx.all(ACCEPTED_OF_ROUND, run_id, round_, kind.value)
    if not is_frozen(tx, run_id, round_, kind):
        members = canonical([[row["assignment_id"], row["sha256"]] for row in rows])
        accepted = hashlib.sha256(members.encode()).hexdigest()
        tx.insert("frozen", {"run_id": run_id, "round": round_, "kind": kind.value, "accepted": accepted})
    return [from_row(ReceiptRecord, row) for row in rows]


def opened_round(tx: Transaction, run_id: str, round_: int) -> RoundRecord:
    """The round as it stands. Raises `StoreError` when it was never opened."""
    row = tx.one("SELECT * FROM rounds WHERE run_id = ? AND round = ?", run_id, round_)
    if row is None:
        raise StoreError(f"round {round_} was never opened", party=run_id)
    return from_row(RoundRecord, row)


def end_round(tx: Transaction, run_id: str, round_: int, report_json: str, entries: Sequence[Entry]) -> None:
    """Nothing more is to come of this round. Round 0 is opened only where clients score the first model."""
    if round_ or tx.one("SELECT 1 FROM rounds WHERE run_id = ? AND round = 0", run_id):
        tx.replace("rounds", to_row(opened_round(tx, run_id, round_)) | {"committed": 1})
    if report_json:
        tx.replace("reports", {"run_id": run_id, "round": round_, "body": report_json})
    note_bytes(tx, run_id, entries)


def note_bytes(tx: Transaction, run_id: str, entries: Sequence[Entry]) -> None:
    """Account for bytes: one link of the chain for all of them."""
    if entries:
        rows = [[e.client, e.round, e.direction.value, e.kind.value, e.bytes] for e in entries]
        tx.note(BYTES_TOPIC, run_id, rows)


def name_blob(tx: Transaction, digest: str) -> None:
    """From now on the bytes of this digest must be there."""
    if tx.one("SELECT 1 FROM blobs WHERE digest = ? AND kept = 1", digest) is None:
        tx.replace("blobs", {"digest": digest, "kept": 1})
