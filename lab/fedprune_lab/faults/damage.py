"""Bits that flip and rows that go, change or trade places in what a run left behind: `verify` has to find each of them.

The chain, the tables, the blobs and the files of the run are all of it, parts of the database that nothing uses included; only the
journal for people, which is written on after the run, is vouched for by nobody.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fedprune_server.store import verify
from fedprune_server.store.schema import FACTS
from fedprune_server.store.sqlite import DATABASE, SEAL

UNVOUCHED = ("log.jsonl", "lock")
TABLES = (*FACTS, "ledger")


@dataclass(slots=True, kw_only=True)
class Seen:
    """How many were tried, and what was not found."""

    flips: int = 0
    rows: int = 0
    missed: list[str] = field(default_factory=list)


def play(run: Path, *, flips: int, rows: int, folder: Path, seed: int = 0) -> Seen:
    """Damage copies of a finished run, which stays as it is: one bit, or one row, at a time."""
    rng, seen = random.Random(seed), Seen()
    copy = shutil.copytree(run, folder / "copy")
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name not in UNVOUCHED)
    for _ in range(flips):
        # By size, as a disk would: most bits are in the large files.
        (path,) = rng.choices(files, weights=[path.stat().st_size for path in files])
        whole = path.read_bytes()
        place, bit = rng.randrange(len(whole)), rng.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        if verify(copy).ok:
            seen.missed.append(f"bit {bit} of byte {place} in {path.relative_to(copy)}")
        path.write_bytes(whole)
        seen.flips += 1
    whole = (copy / "state" / DATABASE).read_bytes()
    # As if the database had been written by someone who knows its format, and left open.
    (copy / "state" / SEAL).unlink()
    while seen.rows < rows:
        table, ids = _filled(copy, rng)
        verb = rng.choice(("delete", "swap")) if len(ids) > 1 else "delete"
        what = _delete(copy, table, rng.choice(ids)) if verb == "delete" else _swap(copy, table, *rng.sample(ids, 2))
        if what:
            seen.rows += 1
            if verify(copy).ok:
                seen.missed.append(what)
        (copy / "state" / DATABASE).write_bytes(whole)
    return seen


def _filled(copy: Path, rng: random.Random) -> tuple[str, list[int]]:
    """A table with rows, and their ids."""
    with closing(sqlite3.connect(copy / "state" / DATABASE)) as database:
        ids = {t: [row[0] for row in database.execute(f"SELECT rowid FROM {t}")] for t in TABLES}
    table = rng.choice([name for name, found in ids.items() if found])
    return table, ids[table]


def _delete(copy: Path, table: str, row: int) -> str:
    with closing(sqlite3.connect(copy / "state" / DATABASE)) as database, database:
        database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))
    return f"row {row} of {table} deleted"


def _swap(copy: Path, table: str, one: int, other: int) -> str:
    """Trade the last columns of two rows, the key staying; nothing where both are the same or may not be."""
    with closing(sqlite3.connect(copy / "state" / DATABASE)) as database:
        column = database.execute(f"PRAGMA table_info({table})").fetchall()[-1][1]
        values = dict(database.execute(f"SELECT rowid, {column} FROM {table} WHERE rowid IN (?, ?)", (one, other)))
        if values[one] == values[other]:
            return ""
        database.execute("PRAGMA ignore_check_constraints = ON")
        try:
            with database:
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (values[other], one))
                database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (values[one], other))
        except sqlite3.IntegrityError:
            return ""
    return f"{column} of rows {one} and {other} of {table} swapped"
