"""What durability costs and how fast a coordinator is back: `python bench/store.py [--rows 100000] [--directory DIR]`.

Recovery, verification and the first start after 100,000 rows of the chain; milliseconds for a receipt, alone and in
groups, with and without syncs; a model-sized blob. Times are of the wall: waiting for the disk is the point.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fedprune.ledger import Direction, Entry, Kind
from fedprune.tensor import Version
from fedprune_server.store import (
    AssignmentRecord,
    RoundRecord,
    RunRecord,
    RunState,
    SqliteStore,
    Submission,
    Upload,
    VersionRecord,
    Work,
    verify,
)

RUN = "bench"
CLIENTS = 100


def begun(path: Path, *, durable: bool) -> SqliteStore:
    """A run with its clients and first version."""
    store = SqliteStore(path, durable=durable)
    store.create_run(RunRecord(run_id=RUN, name=RUN, config_toml="", schema_digest="", state=RunState.RUNNING))
    store.freeze_shards(RUN, {store.client_index(f"site-{i}"): i for i in range(CLIENTS)})
    commit(store, 0, b"model")
    return store


def commit(store: SqliteStore, round_: int, model: bytes) -> None:
    """A version and the bytes of its round."""
    entries = [Entry(client=c, round=round_, direction=Direction.UP, kind=Kind.VALUES, bytes=9) for c in range(CLIENTS)]
    record = VersionRecord(
        run_id=RUN,
        round=round_,
        version=Version(model=round_),
        model_digest=store.blobs.put(model),
        mask_digest=store.blobs.put(b"mask"),
    )
    store.commit_version(record, report_json="{}", entries=entries)


def opened(store: SqliteStore, round_: int) -> list[AssignmentRecord]:
    """A round for everyone."""
    first, version = store.next_assignment_id(), Version(model=round_ - 1)
    works = [
        AssignmentRecord(run_id=RUN, assignment_id=first + c, round=round_, client=c, version=version, kind=Work.TRAIN)
        for c in range(CLIENTS)
    ]
    store.open_round(RoundRecord(run_id=RUN, round=round_, version=version, deadline_s=60.0), works)
    return works


def sealed(store: SqliteStore, work: AssignmentRecord, size: int = 100_000) -> Submission:
    """An update that has arrived."""
    data = f"{work.assignment_id} ".encode() * (size // 8)
    digest = hashlib.sha256(data).hexdigest()
    upload = store.begin_upload(RUN, work.assignment_id, client=work.client, sha256=digest, size=len(data))
    assert isinstance(upload, Upload)
    upload.append(0, data)
    upload.seal()
    return Submission(assignment_id=work.assignment_id, client=work.client, sha256=digest, size=len(data), examples=1)


def empty_result(work: AssignmentRecord) -> Submission:
    """A result without bytes, to fill the chain quickly."""
    nothing = hashlib.sha256(b"").hexdigest()
    return Submission(assignment_id=work.assignment_id, client=work.client, sha256=nothing, size=0, examples=1)


def milliseconds(acts: Iterator[Callable[[], object]]) -> list[float]:
    """How long each takes."""
    taken = []
    for act in acts:
        start = time.perf_counter()
        act()
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


def costs(path: Path, *, durable: bool) -> None:
    """Print what one receipt costs."""
    store = begun(path, durable=durable)
    works = opened(store, 1)
    seals = milliseconds(iter([lambda w=w: sealed(store, w) for w in works[:40]]))  # type: ignore[misc]  # bound now
    said = [sealed(store, w) for w in works]
    singly = milliseconds(iter([lambda s=s: store.accept(RUN, s) for s in said[:40]]))  # type: ignore[misc]
    grouped = milliseconds(iter([lambda: store.accept_many(RUN, said[40:])]))[0] / len(said[40:])
    model = milliseconds(iter([lambda: store.blobs.put(b"x" * 44_000_000)]))[0]
    name = "synced" if durable else "not synced"
    print(f"{name:10s}  100 kB update sealed   median {statistics.median(seals):7.2f} ms  worst {max(seals):7.2f} ms")
    print(f"{name:10s}  receipt, alone         median {statistics.median(singly):7.2f} ms  worst {max(singly):7.2f} ms")
    print(f"{name:10s}  receipt, 60 at once    each   {grouped:7.2f} ms")
    print(f"{name:10s}  44 MB model put        once   {model:7.2f} ms", flush=True)
    store.close()


def recovery(path: Path, rows: int) -> None:
    """Print how long coming back takes."""
    store = begun(path, durable=False)
    for round_ in range(1, rows // (2 * CLIENTS) + 1):
        works = opened(store, round_)
        store.accept_many(RUN, [empty_result(w) for w in works])
        store.freeze(RUN, round_)
        commit(store, round_, f"model {round_}".encode())
    opened(store, round_ + 1)
    store.collect_garbage()
    store._database._disconnect()  # as after a kill: nothing is folded or sealed
    start = time.perf_counter()
    with_lock = SqliteStore(path, take_over=True)
    found = with_lock.recover(RUN)
    back = time.perf_counter() - start
    links = with_lock._database.rows("SELECT count(*) FROM ledger")[0][0]
    print(f"recovery with {links:,} rows: {back:.3f} s, {len(found.assignments)} assignments open")
    with_lock.close()
    start = time.perf_counter()
    problems = verify(path).problems
    print(f"verify: {time.perf_counter() - start:.3f} s, {len(problems)} problems")


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, help="on the disk to measure; default: a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        folder = Path(name)
        costs(folder / "synced", durable=True)
        costs(folder / "loose", durable=False)
        recovery(folder / "long", given.rows)


if __name__ == "__main__":
    main()
