"""Connections of one client that begin, send and commit at the same time: what has its receipt is there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedprune.errors import RemoteError
from fedprune.framing import seal
from fedprune_server.store import AssignmentRecord, ReceiptRecord, SqliteStore, Upload, Verdict, Work, verify

from .conftest import RUN, Scene, submitted

MINE, OTHER = b"the update" * 500, b"another one" * 500
LONGEST_S = 100.0


class Held:
    """Stops whoever passes a failpoint of this name, once armed, until it may go on."""

    def __init__(self) -> None:
        self.point = ""
        self.there, self.go_on = threading.Event(), threading.Event()

    def at(self, point: str) -> None:
        if point == self.point:
            self.point = ""
            self.there.set()
            assert self.go_on.wait(LONGEST_S)


def begin_other(store: SqliteStore, work: AssignmentRecord) -> Upload:
    """A newer connection's upload of other bytes, after it was told that there is no receipt yet."""
    return store._underway.begin((RUN, work.assignment_id), seal(OTHER), party=f"client {work.client}")


@pytest.mark.parametrize("collected", [False, True])
def test_what_is_being_committed_is_not_deleted_for_a_newer_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collected: bool
) -> None:
    """A commit waits for the disk, and who looks meanwhile for records that name the blob sees none."""
    held, looked = Held(), threading.Event()
    store = SqliteStore(tmp_path / "state", durable=False, inline_bytes=0, failpoint=held.at)
    needed = store._needed_blobs

    def look() -> set[str]:
        found = needed()
        looked.set()
        return found

    scene = Scene(store).begin()
    work = scene.open(1)[0]
    said = scene.upload(work, MINE)
    with ThreadPoolExecutor(2) as pool:
        held.point = "accept-before-commit"
        accepting = pool.submit(store.accept, RUN, said)
        assert held.there.wait(LONGEST_S)
        begin_other(store, work)
        monkeypatch.setattr(store, "_needed_blobs", look)
        collecting = pool.submit(store.collect_garbage) if collected else None
        assert not collected or looked.wait(LONGEST_S)
        held.go_on.set()
        assert accepting.result(LONGEST_S).verdict is Verdict.ACCEPTED
        if collecting is not None:
            collecting.result(LONGEST_S)
    assert bytes(store.blobs.open(said.sha256)) == MINE
    store.close()


def test_an_upload_that_begins_while_garbage_is_collected_keeps_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its round was opened after the look at which work is awaited."""
    store = SqliteStore(tmp_path / "state", durable=False, inline_bytes=0)
    scene = Scene(store).begin()
    needed, works = store._needed_blobs, list[AssignmentRecord]()

    def open_and_send() -> set[str]:
        works.extend(scene.open(1))
        upload = begin_other(store, works[0])
        upload.append(0, OTHER[:100])
        return needed()

    monkeypatch.setattr(store, "_needed_blobs", open_and_send)
    store.collect_garbage()
    monkeypatch.undo()
    again = begin_other(store, works[0])
    assert again.offset == 100
    store.close()


@pytest.mark.parametrize("inline_bytes", [0, 1 << 20])
def test_connections_that_race_end_in_one_receipt_and_its_bytes(tmp_path: Path, inline_bytes: int) -> None:
    """Begin, put and commit of one assignment by many threads, with two contents, while garbage is collected."""
    store = SqliteStore(tmp_path / "state", durable=False, inline_bytes=inline_bytes)
    scene = Scene(store).begin()
    for work in scene.open(1, clients=3):
        with ThreadPoolExecutor(6) as pool:
            tries = [pool.submit(attempt, store, work, (MINE, OTHER)[n % 2]) for n in range(24)]
            collecting = [pool.submit(store.collect_garbage) for _ in range(6)]
            answers = [one.result(LONGEST_S) for one in tries]
            for one in collecting:
                one.result(LONGEST_S)
        # Whoever was interrupted begins again, as a client does.
        answers += [attempt(store, work, MINE), attempt(store, work, OTHER)]
        receipts = {answer for answer in answers if isinstance(answer, ReceiptRecord)}
        assert len(receipts) == 1
        (receipt,) = receipts
        assert bytes(store.blobs.open(receipt.sha256)) in (MINE, OTHER)
    assert len(store.receipts(RUN, 1, Work.TRAIN)) == 3
    store.close()
    assert verify(tmp_path / "state").problems == ()


def attempt(store: SqliteStore, work: AssignmentRecord, data: bytes) -> ReceiptRecord | RemoteError:
    """One connection, from its beginning to its answer, in two chunks."""
    said = submitted(work, data)
    try:
        upload = store.begin_upload(RUN, work.assignment_id, client=work.client, sha256=said.sha256, size=said.size)
        if isinstance(upload, ReceiptRecord):
            return upload
        middle = max(upload.offset, len(data) // 2)
        upload.append(upload.offset, data[upload.offset : middle])
        upload.append(upload.offset, data[upload.offset :])
        upload.seal()
        return store.accept(RUN, said)
    except RemoteError as error:
        return error
