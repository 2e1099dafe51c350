"""The tables of the state database, and what identifies a row in each.

Every row of a table of facts is also in the chain (`ledger`), as it was written: the tables answer questions, the
chain proves that nothing in them was changed. Two are no facts: `meta` says who writes and where the chain ends,
`contents` holds small blobs, which prove themselves by their digests.
"""

from __future__ import annotations

FORMAT = 1

# Table -> the columns that identify a row.
FACTS: dict[str, tuple[str, ...]] = {
    "clients": ("client",),
    "runs": ("run_id",),
    "shards": ("run_id", "client"),
    "rounds": ("run_id", "round"),
    "assignments": ("run_id", "assignment_id"),
    "receipts": ("run_id", "assignment_id"),
    "frozen": ("run_id", "round", "kind"),
    "versions": ("run_id", "model"),
    "reports": ("run_id", "round"),
    "files": ("run_id", "name"),
    "blobs": ("digest",),
}

DDL = """
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, epoch INTEGER NOT NULL,
    writer TEXT NOT NULL, links INTEGER NOT NULL, head TEXT NOT NULL) STRICT;
CREATE TABLE ledger (sequence INTEGER PRIMARY KEY, previous TEXT NOT NULL, hash TEXT NOT NULL, topic TEXT NOT NULL,
    run_id TEXT NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE clients (client INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE runs (run_id TEXT PRIMARY KEY, name TEXT NOT NULL, config_toml TEXT NOT NULL,
    schema_digest TEXT NOT NULL, state TEXT NOT NULL) STRICT;
CREATE TABLE shards (run_id TEXT NOT NULL REFERENCES runs, client INTEGER NOT NULL REFERENCES clients,
    shard INTEGER NOT NULL, PRIMARY KEY (run_id, client), UNIQUE (run_id, shard)) STRICT;
CREATE TABLE rounds (run_id TEXT NOT NULL REFERENCES runs, round INTEGER NOT NULL, shape INTEGER NOT NULL,
    model INTEGER NOT NULL, mask INTEGER NOT NULL, deadline_s REAL NOT NULL, target INTEGER NOT NULL,
    committed INTEGER NOT NULL, PRIMARY KEY (run_id, round)) STRICT;
CREATE TABLE assignments (run_id TEXT NOT NULL, assignment_id INTEGER NOT NULL UNIQUE, round INTEGER NOT NULL,
    client INTEGER NOT NULL REFERENCES clients, shape INTEGER NOT NULL, model INTEGER NOT NULL, mask INTEGER NOT NULL,
    kind TEXT NOT NULL, work TEXT NOT NULL, PRIMARY KEY (run_id, assignment_id),
    FOREIGN KEY (run_id, round) REFERENCES rounds) STRICT;
CREATE TABLE receipts (run_id TEXT NOT NULL, assignment_id INTEGER NOT NULL, round INTEGER NOT NULL,
    client INTEGER NOT NULL, kind TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, sha256 TEXT NOT NULL,
    size INTEGER NOT NULL, examples INTEGER NOT NULL, metrics_json TEXT NOT NULL, work_s REAL NOT NULL,
    residual_norm REAL NOT NULL, PRIMARY KEY (run_id, assignment_id),
    FOREIGN KEY (run_id, assignment_id) REFERENCES assignments) STRICT;
CREATE INDEX receipts_of_round ON receipts (run_id, round, kind);
CREATE INDEX assignments_of_round ON assignments (run_id, round);
CREATE TABLE frozen (run_id TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, accepted TEXT NOT NULL,
    PRIMARY KEY (run_id, round, kind), FOREIGN KEY (run_id, round) REFERENCES rounds) STRICT;
CREATE TABLE versions (run_id TEXT NOT NULL REFERENCES runs, round INTEGER NOT NULL, shape INTEGER NOT NULL,
    model INTEGER NOT NULL, mask INTEGER NOT NULL, model_digest TEXT NOT NULL, mask_digest TEXT NOT NULL,
    parent INTEGER, broadcast_digest TEXT, state_digest TEXT, PRIMARY KEY (run_id, model)) STRICT;
CREATE TABLE reports (run_id TEXT NOT NULL REFERENCES runs, round INTEGER NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (run_id, round)) STRICT;
CREATE TABLE files (run_id TEXT NOT NULL REFERENCES runs, name TEXT NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (run_id, name)) STRICT;
CREATE TABLE blobs (digest TEXT PRIMARY KEY, kept INTEGER NOT NULL) STRICT;
CREATE TABLE contents (digest TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT;
"""
