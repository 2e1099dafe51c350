"""Every sort of store, and the records that tests put into them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedprune.tensor import Version
from fedprune_server.store import (
    AssignmentRecord,
    MemoryStore,
    RoundRecord,
    RunRecord,
    RunState,
    SqliteStore,
    Store,
    Submission,
    Upload,
    VersionRecord,
    Work,
)

RUN = "digits-1"
UPDATE = b"an encoded update" * 100


STORES: dict[str, Callable[[Path], Store]] = {
    "small-blobs-in-database": lambda path: SqliteStore(path, durable=False),
    "all-blobs-in-files": lambda path: SqliteStore(path, durable=False, inline_bytes=0),
    "memory": lambda path: MemoryStore(),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each sort."""
    made = STORES[request.param](tmp_path / "state")
    yield made
    made.close()


class Scene:
    """A run with clients 0 to 2 and its first version, and short ways to go on from there."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def begin(self) -> Scene:
        """The run, its clients and version 0."""
        store = self.store
        run = RunRecord(run_id=RUN, name="digits", config_toml="[run]\n", schema_digest="5c", state=RunState.RUNNING)
        store.create_run(run)
        indices = [store.client_index(f"site-{i}") for i in range(3)]
        store.freeze_shards(RUN, {i: i for i in indices})
        store.commit_version(self.version(0, round_=0))
        return self

    def version(self, model: int, *, round_: int) -> VersionRecord:
        """A version whose blobs are there."""
        blobs = self.store.blobs
        return VersionRecord(
            run_id=RUN,
            round=round_,
            version=Version(model=model),
            model_digest=blobs.put(f"model {model}".encode()),
            mask_digest=blobs.put(b"mask"),
            parent=model - 1 if model else None,
            broadcast_digest=blobs.put(f"step to {model}".encode()) if model else None,
        )

    def open(self, round_: int = 1, *, clients: int = 3, kind: Work = Work.TRAIN) -> list[AssignmentRecord]:
        """A round with one assignment for each client."""
        first = self.store.next_assignment_id()
        record = RoundRecord(run_id=RUN, round=round_, version=Version(model=max(0, round_ - 1)), deadline_s=600.0)
        given = [
            AssignmentRecord(
                run_id=RUN,
                assignment_id=first + i,
                round=round_,
                client=i,
                version=record.version,
                kind=kind,
                work=b"\x00work",
            )
            for i in range(clients)
        ]
        self.store.open_round(record, given)
        return given

    def upload(self, work: AssignmentRecord, data: bytes = UPDATE) -> Submission:
        """Bytes sent and sealed, ready to be accepted."""
        submission = submitted(work, data)
        upload = self.store.begin_upload(
            RUN, work.assignment_id, client=work.client, sha256=submission.sha256, size=submission.size
        )
        assert isinstance(upload, Upload)
        upload.append(upload.offset, data[upload.offset :])
        upload.seal()
        return submission


def submitted(work: AssignmentRecord, data: bytes = UPDATE) -> Submission:
    """What the client of this assignment says about these bytes."""
    return Submission(
        assignment_id=work.assignment_id,
        client=work.client,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        examples=100 + work.client,
        metrics_json='{"loss":0.5}',
        work_s=1.5,
    )


@pytest.fixture
def scene(store: Store) -> Scene:
    """A run under way in either store."""
    return Scene(store).begin()
