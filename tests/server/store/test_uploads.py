"""A chunk that is being written when its client begins again elsewhere is there whole, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Event, Thread

import pytest

from fedprune.errors import StaleError
from fedprune_server.store.blobs import Bytes, FileBlobs
from fedprune_server.store.uploads import Upload

DATA = b"an update" * 1000
HALF = len(DATA) // 2


class SlowBlobs(FileBlobs):
    """A disk that takes its time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, durable=False)
        self.begun, self.go_on = Event(), Event()

    def append(self, key: str, data: Bytes) -> None:
        self.begun.set()
        assert self.go_on.wait(100)
        super().append(key, data)


def upload(blobs: FileBlobs) -> Upload:
    return Upload(blobs, key="k", sha256=hashlib.sha256(DATA).hexdigest(), size=len(DATA), party="client 0")


def test_a_newer_connection_waits_for_the_last_chunk_of_the_older(tmp_path: Path) -> None:
    blobs = SlowBlobs(tmp_path)
    older = upload(blobs)
    superseded = Event()

    def begin_again() -> None:
        older.replaced()
        superseded.set()

    writing, again = Thread(target=older.append, args=(0, DATA[:HALF])), Thread(target=begin_again)
    writing.start()
    assert blobs.begun.wait(100)
    again.start()
    assert not superseded.wait(0.05)
    blobs.go_on.set()
    for thread in (writing, again):
        thread.join(100)
    newer = upload(blobs)
    assert newer.offset == HALF
    newer.append(HALF, DATA[HALF:])
    newer.seal()
    assert bytes(blobs.open(newer.sha256)) == DATA


def test_the_older_writes_no_more(tmp_path: Path) -> None:
    blobs = SlowBlobs(tmp_path)
    blobs.go_on.set()
    older = upload(blobs)
    older.replaced()
    with pytest.raises(StaleError, match="client 0: this upload goes on over another connection"):
        older.append(0, DATA)
    assert upload(blobs).offset == 0
