"""The state directory: survives, refuses a second coordinator, fences a stale one, and stops when the disk fails."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedprune.errors import StoreError
from fedprune_server.store import SEAL, SqliteStore, Upload, Work, verify
from fedprune_server.store import database as database_module
from fedprune_server.store.blobs import FileBlobs
from fedprune_server.store.rows import to_row
from fedprune_server.store.sqlite import DATABASE

from .conftest import RUN, UPDATE, Scene, submitted

OPENED: list[SqliteStore] = []


def opened(state: Path, **options: Any) -> SqliteStore:
    """A store that is closed when the test ends, however it ends."""
    OPENED.append(SqliteStore(state, **options))
    return OPENED[-1]


@pytest.fixture(autouse=True)
def closed_in_the_end() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_everything_is_there_again(state: Path) -> None:
    store = opened(state, durable=False)
    scene = Scene(store).begin()
    given = scene.open(1)
    receipt = store.accept(RUN, scene.upload(given[0]))
    before = store.recover(RUN)
    store.close()
    again = opened(state, durable=False)
    assert again.epoch == store.epoch + 1
    assert again.recover(RUN) == before
    assert again.receipts(RUN, 1, Work.TRAIN) == (receipt,)
    assert bytes(again.blobs.open(receipt.sha256)) == UPDATE
    assert again.client_index("site-2") == 2
    again.close()


def test_an_upload_goes_on_after_a_restart(state: Path) -> None:
    store = opened(state, durable=False)
    work = Scene(store).begin().open(1)[0]
    said = submitted(work)

    def begun(where: SqliteStore) -> Upload:
        upload = where.begin_upload(RUN, work.assignment_id, client=0, sha256=said.sha256, size=said.size)
        assert isinstance(upload, Upload)
        return upload

    begun(store).append(0, UPDATE[:1000])
    store.close()
    again = opened(state, durable=False)
    upload = begun(again)
    assert upload.offset == 1000
    upload.append(1000, UPDATE[1000:])
    upload.seal()
    assert again.accept(RUN, said).sha256 == said.sha256
    again.close()


class TestOneCoordinator:
    def test_a_second_one_is_refused_and_told_who_holds_it(self, state: Path) -> None:
        store = opened(state, durable=False)
        with pytest.raises(StoreError, match=rf"in use .*process {os.getpid()}"):
            opened(state, durable=False)
        store.close()
        opened(state, durable=False).close()

    def test_the_lock_goes_with_its_process(self, state: Path) -> None:
        code = (
            "import os, sys, pathlib, fedprune_server.store as s; s.SqliteStore(pathlib.Path(sys.argv[1])); os._exit(0)"
        )
        subprocess.run([sys.executable, "-c", code, str(state)], check=True)
        store = opened(state, durable=False)
        assert store.epoch == 2
        store.close()

    def test_a_stale_writer_is_fenced(self, state: Path) -> None:
        stale = opened(state, durable=False)
        work = Scene(stale).begin().open(1)[0]
        said = Scene(stale).upload(work)
        newer = opened(state, durable=False, take_over=True)
        with pytest.raises(StoreError, match=rf"taken over .*epoch 2, process {os.getpid()}"):
            stale.accept(RUN, said)
        with pytest.raises(StoreError, match="taken over"):
            stale.runs()
        assert newer.receipts(RUN, 1, Work.TRAIN) == ()
        assert newer.accept(RUN, Scene(newer).upload(work)).client == 0
        stale.close()
        newer.close()

    def test_who_takes_over_holds_the_lock(self, state: Path) -> None:
        first = opened(state, durable=False)
        second = opened(state, durable=False, take_over=True)
        first.close()
        with pytest.raises(StoreError, match="in use"):
            opened(state, durable=False)
        assert second.next_assignment_id() == 1

    def test_a_writer_that_stopped_in_the_middle_of_a_write_is_named(
        self, state: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.01)
        stopped = opened(state, durable=False)
        told = pytest.raises(StoreError, match=rf"process {os.getpid()} on .* middle of a write: end it")
        with stopped._database.transaction("add-client"), told:
            opened(state, durable=False, take_over=True)
        stopped.check_usable()
        assert opened(state, durable=False, take_over=True).epoch == 2


def test_the_key_alone_keeps_a_receipt_from_being_given_twice(state: Path) -> None:
    """Should the check before it ever be wrong, the table still knows."""
    store = opened(state, durable=False)
    scene = Scene(store).begin()
    receipt = store.accept(RUN, scene.upload(scene.open(1)[0]))

    def again() -> None:
        with store._database.transaction("accept") as tx:
            tx.insert("receipts", to_row(receipt) | {"sha256": "other"})

    with pytest.raises(StoreError, match="contradicts what is stored"):
        again()
    assert store.receipts(RUN, 1, Work.TRAIN) == (receipt,)
    store.close()


class TestTrouble:
    def scene(self, state: Path) -> tuple[SqliteStore, Scene]:
        store = opened(state, durable=True, inline_bytes=0)
        return store, Scene(store).begin()

    def expect_stopped(self, store: SqliteStore, state: Path, accepted: int) -> None:
        """Nothing works any more, and after a restart there is what was acknowledged."""
        for act in (store.runs, store.next_assignment_id, lambda: store.client_index("new")):
            with pytest.raises(StoreError, match="could not"):
                act()
        store.close()
        again = opened(state, durable=False)
        assert len(again.receipts(RUN, 1, Work.TRAIN)) == accepted
        assert again.client_index("new") == 3
        again.close()

    def test_a_full_database_stops_the_store(self, state: Path) -> None:
        store, scene = self.scene(state)
        given = scene.open(1)
        store.accept(RUN, scene.upload(given[0]))
        said = scene.upload(given[1])
        pages = store._database.rows("PRAGMA page_count")[0][0]
        store._database._write.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match=r"could not put report .*full"):
            store.put_report(RUN, 1, "x" * 100_000)
        with pytest.raises(StoreError, match="could not put report"):
            store.accept(RUN, said)
        self.expect_stopped(store, state, accepted=1)

    @pytest.mark.parametrize(("call", "number"), [("write", errno.ENOSPC), ("fsync", errno.EIO)])
    def test_a_failing_disk_stops_the_store(
        self, state: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
    ) -> None:
        store, scene = self.scene(state)
        work = scene.open(1)[0]

        def fail(*args: object) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(os, call, fail)
            with pytest.raises(StoreError, match=rf"could not .*{os.strerror(number)}.*Free space"):
                scene.upload(work)
        assert submitted(work).sha256 not in os.listdir(state / "blobs")
        self.expect_stopped(store, state, accepted=0)

    def test_a_directory_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(StoreError, match=r"file.*cannot use"):
            SqliteStore(tmp_path / "file")

    def test_a_file_that_is_no_database_is_named(self, state: Path) -> None:
        state.mkdir()
        (state / "state.db").write_bytes(b"something else entirely, and long enough to be read" * 100)
        with pytest.raises(StoreError, match="not a database"):
            opened(state)

    def test_a_store_of_another_format_is_refused(self, state: Path) -> None:
        store = opened(state, durable=False)
        store._database._write.execute("UPDATE meta SET format = 99")
        store.close()
        with pytest.raises(StoreError, match=r"another format .*got 99"):
            opened(state)

    def test_damage_is_found_before_going_on(self, state: Path) -> None:
        store, scene = self.scene(state)
        scene.open(1)
        store._database._write.execute("UPDATE ledger SET body = replace(body, 'site', 'cite') WHERE sequence = 2")
        with pytest.raises(StoreError, match="damaged at row 2"):
            store.recover(RUN)
        store.close()

    def test_a_damaged_blob_is_found_before_going_on(self, state: Path) -> None:
        store, _ = self.scene(state)
        latest = store.latest_version(RUN)
        assert latest is not None
        (state / "blobs" / latest.model_digest).write_bytes(b"model O")
        with pytest.raises(StoreError, match=rf"blob is damaged .*{latest.model_digest}"):
            store.recover(RUN)
        store.close()


class TestDurability:
    def test_a_blob_is_synced_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        blobs = FileBlobs(tmp_path)
        steps: list[str] = []
        really, rename = os.fsync, Path.replace

        def fsync(handle: int) -> None:
            steps.append(Path(os.readlink(f"/proc/self/fd/{handle}")).parent.name)
            really(handle)

        def replace(self: Path, target: Path) -> Path:
            steps.append("rename")
            return rename(self, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        blobs.put(b"bytes")
        assert steps == ["staging", "rename", tmp_path.name]

    @pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 0)])
    def test_commits_are_synced(self, state: Path, durable: bool, level: int) -> None:
        store = opened(state, durable=durable)
        assert store._database._write.execute("PRAGMA synchronous").fetchone()[0] == level
        assert store._database._write.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        store.close()

    def test_a_small_blob_comes_with_its_record(self, state: Path) -> None:
        store = opened(state, durable=False, inline_bytes=len(UPDATE))
        scene = Scene(store).begin()
        given = scene.open(1)
        said, unnamed, large = scene.upload(given[0]), store.blobs.put(b"unnamed"), store.blobs.put(UPDATE + b"!")
        store.accept(RUN, said)
        assert [path.name for path in (state / "blobs").iterdir()] == [large]
        assert set(store.blobs._waiting) == {unnamed}, "only what no record names waits in memory"
        store.close()
        again = opened(state, durable=False)
        assert bytes(again.blobs.open(said.sha256)) == UPDATE
        assert again.blobs.exists(large)
        assert not again.blobs.exists(unnamed)
        again.close()

    def test_a_refused_change_keeps_its_small_blob_waiting(self, state: Path) -> None:
        store = opened(state, durable=False)
        scene = Scene(store).begin()
        record = scene.version(5, round_=5)
        with pytest.raises(StoreError, match="round 5 was never opened"):
            store.commit_version(record)
        assert bytes(store.blobs.open(record.model_digest)) == b"model 5"
        assert store._database.rows("SELECT * FROM contents WHERE digest = ?", record.model_digest) == []
        store.commit_version(replace(record, round=0))
        assert bytes(store.blobs.open(record.model_digest)) == b"model 5"
        store.close()

    def test_what_was_told_is_synced_and_the_rest_in_order(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = opened(state)
        levels: dict[str, int] = {}

        def note(point: str) -> None:
            levels[point] = store._database._write.execute("PRAGMA synchronous").fetchone()[0]

        monkeypatch.setattr(store._database, "_at", note)
        scene = Scene(store).begin()
        work = scene.open(1)[0]
        store.accept(RUN, scene.upload(work))
        store.freeze(RUN, 1)
        store.put_report(RUN, 1, "{}")
        store.commit_version(scene.version(1, round_=1))
        full = {point.removesuffix("-before-commit") for point, level in levels.items() if level == 2}
        told = {"create-run", "add-client", "commit-version", "begin-upload", "accept"}
        assert {name for name in full if not name.endswith("after-commit")} == told
        scene.open(2)
        store.commit_version(scene.version(2, round_=2), synced=False)
        assert levels["commit-version-before-commit"] == 1
        store.collect_garbage()
        assert levels["collect-garbage-before-commit"] == 1
        store.close()

    def test_only_what_is_synced_folds_the_log_in(self, state: Path) -> None:
        """That syncs the log and the file, which is no work for whoever was promised not to wait for a disk."""
        store = opened(state)
        page, file = 4096, state / DATABASE
        before = file.stat().st_size
        with store._database.transaction("unsynced", synced=False) as tx:
            tx.put_content("large", bytes(2 * database_module.FOLD_PAGES * page))
        with store._database.transaction("unsynced", synced=False) as tx:
            tx.put_content("small", b"")
        assert file.stat().st_size == before
        with store._database.transaction("synced") as tx:
            tx.put_content("next", b"")
        assert file.stat().st_size > 2 * database_module.FOLD_PAGES * page
        store.close()

    def test_a_file_that_goes_is_synced(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = opened(state, inline_bytes=0)
        scene = Scene(store).begin()
        scene.open(1)
        store.commit_version(scene.version(1, round_=1))
        levels: list[int] = []
        read = "PRAGMA synchronous"
        monkeypatch.setattr(
            store._database, "_at", lambda point: levels.append(store._database._write.execute(read).fetchone()[0])
        )
        assert store.collect_garbage() == len(b"model 0")
        assert set(levels) == {2}

    def test_readers_see_what_is_committed(self, state: Path) -> None:
        store = opened(state, durable=False)
        Scene(store).begin()
        with store._database.transaction("try") as tx:
            tx.insert("reports", {"run_id": RUN, "round": 1, "body": "half done"})
            assert store.reports(RUN) == {}
        assert store.reports(RUN) == {1: "half done"}
        store.close()

    def test_a_change_that_raises_leaves_nothing(self, state: Path) -> None:
        store = opened(state, durable=False)
        Scene(store).begin()

        def half_done() -> None:
            with store._database.transaction("try") as tx:
                tx.insert("reports", {"run_id": RUN, "round": 1, "body": "half done"})
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            half_done()
        assert store.reports(RUN) == {}
        store.put_report(RUN, 1, "whole")
        store.recover(RUN)
        store.close()


def test_two_threads_put_the_same_bytes_at_once(tmp_path: Path) -> None:
    """Each is held at its first byte until the other is there too, so that both write."""
    both = threading.Barrier(2)
    blobs = FileBlobs(tmp_path, durable=False, at=lambda point: _wait(both) if point == "blob-append" else None)
    data = bytes(range(256)) * 4096
    with ThreadPoolExecutor(2) as pool:
        digests = set(pool.map(blobs.put, [data, data]))
    assert len(digests) == 1
    assert bytes(blobs.open(digests.pop())) == data
    assert blobs.staged_keys() == set()


def _wait(barrier: threading.Barrier) -> None:
    barrier.wait(100)


def test_a_file_that_somebody_still_reads_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that was stopped while it read, and wakes up after another one has finished, closes the file last."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    store = opened(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as asleep:
        asleep.execute("BEGIN")
        asleep.execute("SELECT count(*) FROM ledger").fetchone()
        store.client_index("later")
        store.close()
    # It is there: without one, whoever starts next would take the run for one that was killed.
    assert (tmp_path / SEAL).read_text() == ""
    found = verify(tmp_path)
    assert found.problems == ()
    assert found.notes == ("the store was read while it was closed: unused parts of its file are not checked",)


def test_what_is_deleted_is_not_written_over(tmp_path: Path) -> None:
    """A build of SQLite that does costs half a second for the garbage of a hundred rounds."""

    def opened_database() -> database_module.Database:
        return database_module.Database(tmp_path / DATABASE, where="here", durable=False, at=lambda name: None)

    database = opened_database()
    with database.transaction("put") as tx:
        for number in range(40):
            tx.put_content(str(number), bytes(100_000))
    database.close()
    database = opened_database()
    with database.transaction("collect-garbage") as tx:
        assert sum(tx.delete_content(str(number)) for number in range(40)) == 4_000_000
    assert (tmp_path / f"{DATABASE}-wal").stat().st_size < 400_000
    database.close()
