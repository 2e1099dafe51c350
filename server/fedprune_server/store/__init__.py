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
from fedprune_server.store.sqlite import MemoryStore, SqliteStore
from fedprune_server.store.uploads import Upload

__all__ = [
    "AssignmentRecord",
    "Blobs",
    "ClientRecord",
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
]
