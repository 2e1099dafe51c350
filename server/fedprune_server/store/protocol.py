"""What the coordinator asks of a store, whatever stands behind it.

One store holds the runs of one coordinator, one after another. Each method that changes something is one
transaction: when it raises, nothing changed; when it returns, the change survives a kill. What someone outside is told
of (an index, a receipt, a version) survives a power cut, too; what is marked *in order* below does so from the next
such change on, and is never there without what came before it. There is one writer; a second coordinator that opens the same store makes every later change of the first one fail. Any thread
may call. All methods raise `StoreError` when the disk is full, an I/O error occurs or another coordinator took over;
after such an error a store answers nothing but that error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from fedprune.errors import RemoteError
from fedprune.ledger import Entry
from fedprune_server.store.blobs import Blobs
from fedprune_server.store.records import (
    AssignmentRecord,
    ClientRecord,
    ReceiptRecord,
    Recovery,
    RoundRecord,
    RunRecord,
    RunState,
    Submission,
    VersionRecord,
    Work,
)
from fedprune_server.store.uploads import Upload


class Store(Protocol):
    """Runs, rounds, versions, receipts and the byte ledger, with the blobs they name."""

    @property
    def blobs(self) -> Blobs:
        """The content-addressed bytes."""

    @property
    def epoch(self) -> int:
        """How often this store has been opened; a writer of an older epoch is fenced."""

    def close(self) -> None:
        """Give the store back. Further calls raise `StoreError`."""

    def check_usable(self) -> None:
        """Raise what ended the store, if something did."""

    # clients
    def client_index(self, identity: str) -> int:
        """The client's index, from 0, assigned when its identity is first seen and never changed."""

    def clients(self) -> tuple[ClientRecord, ...]:
        """All clients ever seen, by index."""

    # runs
    def create_run(self, run: RunRecord) -> None:
        """Begin a run. Raises `StoreError` when its id is taken or another run is unfinished."""

    def set_run_state(self, run_id: str, state: RunState) -> None:
        """Say where the run stands."""

    def run(self, run_id: str) -> RunRecord:
        """One run. Raises `StoreError` when there is none of this id."""

    def runs(self) -> tuple[RunRecord, ...]:
        """All runs, in the order they were created."""

    def unfinished_run(self) -> RunRecord | None:
        """The run to go on with, if any."""

    def recover(self, run_id: str) -> Recovery:
        """What there is of an unfinished run. Checks the database, the chain's tail and every blob that going on
        needs; raises `StoreError` naming the first that is damaged."""

    def freeze_shards(self, run_id: str, shards: Mapping[int, int]) -> None:
        """Fix the shard index of each client; later calls may add clients, never change one. In order."""

    def shards(self, run_id: str) -> dict[int, int]:
        """Client index -> shard index."""

    # versions
    def commit_version(
        self, record: VersionRecord, *, report_json: str = "", entries: Sequence[Entry] = (), synced: bool = True
    ) -> None:
        """Make a model the latest version; closes the round it belongs to. Its blobs must be there.

        Without `synced`, in order: for a version that comes out the same when it is made again from the receipts."""

    def latest_version(self, run_id: str) -> VersionRecord | None:
        """The last committed version."""

    def version(self, run_id: str, model: int) -> VersionRecord:
        """One version by its model number. Raises `StoreError` when it was never committed."""

    def put_report(self, run_id: str, round_: int, report_json: str) -> None:
        """Keep or replace the report of a round. In order."""

    def reports(self, run_id: str) -> dict[int, str]:
        """Round -> report, ascending."""

    def record_files(self, run_id: str, digests: Mapping[str, str]) -> None:
        """Remember files of the run directory (name relative to it -> SHA-256 in hex), so that `verify` can hold them
        against it; see `digests_of`."""

    # rounds
    def next_assignment_id(self) -> int:
        """One more than any assignment id ever used in this store."""

    def open_round(self, record: RoundRecord, assignments: Sequence[AssignmentRecord]) -> None:
        """Begin a round with its assignments. Raises `StoreError` when it was opened before. In order."""

    def close_round(self, run_id: str, round_: int, *, report_json: str = "", entries: Sequence[Entry] = ()) -> None:
        """End a round that makes no new version, because no update counted."""

    def round(self, run_id: str, round_: int) -> RoundRecord | None:
        """A round that was opened."""

    def extend_round(self, run_id: str, round_: int, deadline_s: float) -> None:
        """Give an open round another span. In order."""

    def add_assignments(self, assignments: Sequence[AssignmentRecord]) -> None:
        """More work in a round that was opened, of a kind that is not frozen. In order."""

    def assignment(self, run_id: str, assignment_id: int) -> AssignmentRecord | None:
        """What was assigned under this id."""

    def assignments(self, run_id: str, round_: int) -> tuple[AssignmentRecord, ...]:
        """All work of a round, by assignment id."""

    # results
    def begin_upload(
        self, run_id: str, assignment_id: int, *, client: int, sha256: str, size: int
    ) -> Upload | ReceiptRecord:
        """Where to put the client's result: an `Upload` at the offset reached so far, or the receipt it already has.

        The caller checks `size` against its limits first. A closed round gives a stale receipt, which is stored.
        Raises `StaleError` for an assignment that this client was never given and `DuplicateError` when it has its
        receipt for other bytes.
        """

    def bring(self, run_id: str, assignment_id: int, data: bytes, *, sha256: str) -> None:
        """Keep a checked result of this digest that came whole, until `accept` names it or answers otherwise."""

    def accept(self, run_id: str, submission: Submission) -> ReceiptRecord:
        """Make a sealed and validated upload count, once. The same bytes again: the same receipt; other bytes:
        `DuplicateError`; a closed round: a stale receipt."""

    def accept_many(self, run_id: str, submissions: Sequence[Submission]) -> list[ReceiptRecord | RemoteError]:
        """`accept` for several in one transaction; one that is refused is answered by its error, in its place."""

    def receipts(self, run_id: str, round_: int, kind: Work) -> tuple[ReceiptRecord, ...]:
        """The accepted results of a round so far, by client."""

    def freeze(self, run_id: str, round_: int, kind: Work = Work.TRAIN) -> tuple[ReceiptRecord, ...]:
        """Close the accepted set of a round and give it, by client. Asked again, it gives the same set. In order."""

    def frozen(self, run_id: str, round_: int) -> frozenset[Work]:
        """The kinds of work of a round whose accepted set is closed."""

    # bytes
    def append_entries(self, run_id: str, entries: Sequence[Entry]) -> None:
        """Account for bytes outside a commit. In order."""

    def entries(self, run_id: str) -> list[Entry]:
        """All entries of a run, as they were appended."""

    # audit
    def append_audit(self, run_id: str, body: str) -> None:
        """Keep an event of the audit in the chain. In order."""

    def audit(self, run_id: str) -> list[str]:
        """All events of the audit of a run, as they were appended; accepted results that were signed among them."""

    def collect_garbage(self, keep: Collection[str] = ()) -> int:
        """Delete the blobs that are neither in `keep` nor needed to go on (the last version of each run, the
        updates of rounds that are not committed, uploads under way), and staged bytes nobody waits for; digests stay in
        the ledger. Call it when no blob waits to be named by a commit. Returns the bytes freed."""
