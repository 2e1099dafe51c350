"""Model, masks, updates, receipts and the byte ledger: durable, versioned, each counted exactly once."""

from fedprune_server.store.blobs import Blobs
from fedprune_server.store.protocol import Store
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
from fedprune_server.store.sqlite import SEAL, MemoryStore, SqliteStore, digests_of
from fedprune_server.store.uploads import Upload
from fedprune_server.store.verify import Findings, verify

__all__ = [
    "SEAL",
    "AssignmentRecord",
    "Blobs",
    "ClientRecord",
    "Findings",
    "MemoryStore",
    "ReceiptRecord",
    "Recovery",
    "RoundRecord",
    "RunRecord",
    "RunState",
    "SqliteStore",
    "Store",
    "Submission",
    "Upload",
    "Verdict",
    "VersionRecord",
    "Work",
    "digests_of",
    "verify",
]
