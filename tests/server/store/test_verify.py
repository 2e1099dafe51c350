"""Whatever is changed in what a run left behind, `verify` finds it."""

from __future__ import annotations

import importlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedprune.errors import StoreError
from fedprune.ledger import Direction, Entry, Kind
from fedprune_server.store import SqliteStore, digests_of, verify
from fedprune_server.store.schema import DDL, FACTS

from .conftest import RUN, Scene

FLIPS = 150
# The package gives out the function under the module's name.
verifying = importlib.import_module("fedprune_server.store.verify")


def leave(run_dir: Path) -> None:
    """A run of two rounds with every sort of row, blob and file."""
    store = SqliteStore(run_dir / "state", durable=False, inline_bytes=len(b"mask"))
    scene = Scene(store).begin()
    for number in (1, 2):
        for work in scene.open(number):
            store.accept(RUN, scene.upload(work, f"update {number} of {work.client}".encode()))
        store.freeze(RUN, number)
        spent = Entry(client=0, round=number, direction=Direction.UP, kind=Kind.VALUES, bytes=7)
        store.commit_version(scene.version(number, round_=number), report_json=f'{{"round":{number}}}', entries=[spent])
    store.collect_garbage()
    (run_dir / "report.json").write_text("{}")
    store.record_files(RUN, digests_of(run_dir, but={"state"}))
    store.close()


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("verify") / "digits"
    made.mkdir()
    leave(made)
    return made


@pytest.fixture
def run_dir(left: Path, tmp_path: Path) -> Path:
    return shutil.copytree(left, tmp_path / "digits")


def change(run_dir: Path, sql: str, *, seal: bool = False) -> None:
    """Tamper with the database; without `seal`, as if it had been left open."""
    with closing(sqlite3.connect(run_dir / "state" / "state.db")) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute(sql)
    if not seal:
        (run_dir / "state" / "state.seal").unlink()


def test_what_was_written_is_fine(run_dir: Path) -> None:
    found = verify(run_dir)
    assert found.ok
    assert found.notes == ()
    assert (found.blobs, found.files) == (3, 1)
    assert found.links > 30
    assert verify(run_dir / "state").head == found.head
    assert not any((run_dir / "state").glob("*-wal"))


def test_a_store_in_use_is_fine_too(run_dir: Path) -> None:
    store = SqliteStore(run_dir / "state", durable=False)
    store.put_report(RUN, 3, "{}")
    found = verify(run_dir)
    assert found.ok
    assert "is open or was not closed" in found.notes[0]
    store.close()
    assert verify(run_dir).notes == ()


def test_what_a_coordinator_at_work_lets_go_of_meanwhile_is_not_missed(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were read, and then a version is committed whose predecessor goes: before its file is read, and after
    its name was."""
    store = SqliteStore(run_dir / "state", durable=False, inline_bytes=len(b"mask"))
    scene = Scene(store)
    scene.open(3)
    read: Callable[[Path], str] = verifying.digest_of
    seen: list[Path] = []

    def read_late(path: Path) -> str:
        if path.parent.name == "blobs":
            if not seen:
                store.commit_version(scene.version(3, round_=3))
                store.collect_garbage()
            seen.append(path)
        return read(path)

    monkeypatch.setattr(verifying, "digest_of", read_late)
    assert verify(run_dir).problems == ()
    assert not all(path.exists() for path in seen)
    store.close()


def test_rows_that_are_written_meanwhile_are_not_taken_for_damage(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(run_dir / "state", durable=False)
    compare = verifying._differences

    def compare_late(*tables: Any) -> Iterator[str]:
        yield from compare(*tables)
        store.put_report(RUN, 4, "{}")

    monkeypatch.setattr(verifying, "_differences", compare_late)
    assert verify(run_dir).problems == ()
    store.close()


def test_no_run_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no run here"):
        verify(tmp_path)


def flipped(path: Path, rng: random.Random) -> Iterator[str]:
    """Flip one random bit after another, each back again."""
    whole = path.read_bytes()
    for _ in range(FLIPS):
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        yield f"bit {bit} of byte {place} in {path.name}"
    path.write_bytes(whole)


def test_any_flipped_bit_of_the_database_is_found(run_dir: Path) -> None:
    for what in flipped(run_dir / "state" / "state.db", random.Random(4)):
        assert not verify(run_dir).ok, what
    assert verify(run_dir).ok


def test_any_flipped_bit_of_a_blob_or_file_is_found(run_dir: Path) -> None:
    rng = random.Random(5)
    for path in [*(run_dir / "state" / "blobs").iterdir(), run_dir / "report.json"]:
        for what, _ in zip(flipped(path, rng), range(15), strict=False):
            assert any(path.name in problem for problem in verify(run_dir).problems), what


def columns() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(DDL)
        tables = [*FACTS, "ledger"]
        return [(t, c[1]) for t in tables for c in database.execute(f"PRAGMA table_info({t})")]


@pytest.mark.parametrize(("table", "column"), columns())
def test_a_changed_value_is_found_without_the_seal(run_dir: Path, table: str, column: str) -> None:
    with closing(sqlite3.connect(run_dir / "state" / "state.db")) as database:
        rows = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        kinds = {c[1]: c[2] for c in database.execute(f"PRAGMA table_info({table})")}
    assert rows, f"the run leaves nothing in {table}"
    other = f"coalesce({column}, '') || 'x'" if kinds[column] == "TEXT" else f"{column} + 1000"
    change(run_dir, f"UPDATE {table} SET {column} = {other} WHERE rowid = (SELECT max(rowid) FROM {table})")
    assert any(problem.startswith((table, "ledger", "receipts")) for problem in verify(run_dir).problems)


@pytest.mark.parametrize("table", [*FACTS, "ledger"])
def test_a_missing_row_is_found(run_dir: Path, table: str) -> None:
    for which in ("min", "max"):
        damaged = shutil.copytree(run_dir, run_dir.with_name(which))
        change(damaged, f"DELETE FROM {table} WHERE rowid = (SELECT {which}(rowid) FROM {table})")
        assert any(table in problem for problem in verify(damaged).problems)


def test_a_missing_row_in_the_middle_of_the_chain_is_found(run_dir: Path) -> None:
    change(run_dir, "DELETE FROM ledger WHERE sequence = 9")
    assert "ledger: row 10: rows 9 to 9 are missing" in verify(run_dir).problems


def test_swapped_rows_are_found(run_dir: Path) -> None:
    change(run_dir, "UPDATE ledger SET sequence = CASE sequence WHEN 7 THEN -8 ELSE -7 END WHERE sequence IN (7, 8)")
    change(run_dir, "UPDATE ledger SET sequence = -sequence WHERE sequence < 0", seal=True)
    assert any("row 7" in problem for problem in verify(run_dir).problems)


def test_swapped_receipts_are_found(run_dir: Path) -> None:
    change(
        run_dir,
        "UPDATE receipts SET sha256 = (SELECT sha256 FROM receipts AS o WHERE o.assignment_id = 3 - receipts.assignment_id)"
        " WHERE assignment_id IN (1, 2)",
    )
    problems = verify(run_dir).problems
    assert f"receipts: row {RUN}/1 was changed" in problems
    assert "receipts: the accepted set of round 1 is not the frozen one" in problems


def test_a_row_that_was_never_written_is_found(run_dir: Path) -> None:
    change(run_dir, f"INSERT INTO reports VALUES ('{RUN}', 99, 'better')")
    assert f"reports: row {RUN}/99 was never written" in verify(run_dir).problems


def test_a_missing_blob_and_a_missing_file_are_named(run_dir: Path) -> None:
    blob = next((run_dir / "state" / "blobs").iterdir())
    blob.unlink()
    (run_dir / "report.json").unlink()
    assert set(verify(run_dir).problems) == {f"blobs: {blob.name} is missing", "report.json: is missing"}


def test_a_changed_small_blob_is_found(run_dir: Path) -> None:
    change(run_dir, "UPDATE contents SET data = CAST('masc' AS BLOB)")
    assert [p.rsplit(" ", 3)[-3:] for p in verify(run_dir).problems] == [["has", "other", "content"]]
    change(run_dir, "DELETE FROM contents", seal=True)
    assert [p.rsplit(" ", 2)[-2:] for p in verify(run_dir).problems] == [["is", "missing"]]


def test_swapped_blobs_are_found(run_dir: Path) -> None:
    one, other, *_ = (run_dir / "state" / "blobs").iterdir()
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert len(verify(run_dir).problems) == 2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"junk" * 999])
def test_a_database_that_cannot_be_read_is_a_finding(run_dir: Path, damage: Callable[[bytes], bytes]) -> None:
    path = run_dir / "state" / "state.db"
    path.write_bytes(damage(path.read_bytes()))
    assert any(problem.startswith("state.db") for problem in verify(run_dir).problems)


def test_many_problems_of_one_sort_are_counted(run_dir: Path) -> None:
    change(run_dir, "UPDATE ledger SET hash = 'x'")
    problems = [p for p in verify(run_dir).problems if p.startswith("ledger")]
    assert len(problems) < 25
    assert any("more" in p for p in problems)
