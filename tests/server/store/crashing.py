"""A small coordinator without a network, killed at every point that the store names, and what it finds afterwards.

Run as a program: it forks one child for each point, lets it kill itself there, finishes the journey in another child,
and prints what happened as JSON. A program of its own, because forking needs a process without threads. Nothing is
synced here: what a process has written survives its own death anyway.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fedprune.tensor import Version
from fedprune_server.store import (
    AssignmentRecord,
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

RUN = "crash"
CLIENTS, ROUNDS = 2, 2
Open = Callable[..., SqliteStore]
Say = Callable[[str], None]


def journey(store: Store, acknowledge: Say) -> None:
    """From wherever the store stands to a finished run."""
    if store.runs() and store.unfinished_run() is None:
        return
    if store.unfinished_run() is None:
        store.create_run(RunRecord(run_id=RUN, name=RUN, config_toml="", schema_digest="", state=RunState.RUNNING))
    store.freeze_shards(RUN, {store.client_index(f"site-{i}"): i for i in range(CLIENTS)})
    if store.latest_version(RUN) is None:
        store.commit_version(_version(store, 0, b"first"))
    while (latest := store.latest_version(RUN)) is not None and latest.version.model < ROUNDS:
        _round(store, latest.version.model + 1, acknowledge)
    store.set_run_state(RUN, RunState.FINISHED)


def _round(store: Store, number: int, acknowledge: Say) -> None:
    found = store.recover(RUN)
    if found.open_round is None:
        store.open_round(*_opening(store, number))
    for work in store.assignments(RUN, number):
        if Work.TRAIN not in store.recover(RUN).frozen:
            _submit(store, work, acknowledge)
    accepted = store.freeze(RUN, number)
    model = b"+".join(bytes(store.blobs.open(receipt.sha256)) for receipt in accepted)
    store.commit_version(_version(store, number, model), report_json="{}")
    store.collect_garbage()


def _opening(store: Store, number: int) -> tuple[RoundRecord, list[AssignmentRecord]]:
    version = Version(model=number - 1)
    first = store.next_assignment_id()
    works = [
        AssignmentRecord(run_id=RUN, assignment_id=first + i, round=number, client=i, version=version, kind=Work.TRAIN)
        for i in range(CLIENTS)
    ]
    return RoundRecord(run_id=RUN, round=number, version=version, deadline_s=1.0), works


def _submit(store: Store, work: AssignmentRecord, acknowledge: Say) -> None:
    data = f"update {work.round}/{work.client}".encode() * 50
    digest = hashlib.sha256(data).hexdigest()
    upload = store.begin_upload(RUN, work.assignment_id, client=work.client, sha256=digest, size=len(data))
    if isinstance(upload, Upload):
        for start in range(upload.offset, len(data), 400):
            upload.append(start, data[start : start + 400])
        upload.seal()
        said = Submission(
            assignment_id=work.assignment_id, client=work.client, sha256=digest, size=len(data), examples=1
        )
        store.accept(RUN, said)
    acknowledge(f"{work.round}/{work.client}")


def _version(store: Store, model: int, data: bytes) -> VersionRecord:
    return VersionRecord(
        run_id=RUN,
        round=model,
        version=Version(model=model),
        model_digest=store.blobs.put(data),
        mask_digest=store.blobs.put(b"mask"),
    )


def outcome(store: Store) -> dict[str, Any]:
    """What must not depend on crashes."""
    receipts = [store.receipts(RUN, number, Work.TRAIN) for number in range(1, ROUNDS + 1)]
    latest = store.latest_version(RUN)
    return {
        "state": store.run(RUN).state.value,
        "model": latest.model_digest if latest else None,
        "receipts": [[r.assignment_id, r.client, r.sha256, r.verdict.value] for batch in receipts for r in batch],
    }


def points(state: Path, opened: Open) -> list[str]:
    """Every point that an undisturbed journey passes, in order."""
    passed: list[str] = []
    store = opened(state, failpoint=passed.append)
    journey(store, lambda name: None)
    store.close()
    return passed


def killed_at(state: Path, number: int, opened: Open) -> list[str]:
    """Kill a journey at its point `number`; returns what had been acknowledged by then."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        left = iter(range(number, -1, -1))

        def failpoint(name: str) -> None:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def acknowledge(name: str) -> None:
            os.write(told, f"{name} ".encode())

        # Whatever happens: a child that came back would go on with the tests beside its parent.
        try:
            journey(opened(state, failpoint=failpoint), acknowledge)
        finally:
            os._exit(3)
    os.close(told)
    with os.fdopen(heard) as acknowledged:
        text = acknowledged.read()
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), f"point {number} was not reached"
    return text.split()


def trial(state: Path, number: int, opened: Open) -> dict[str, Any]:
    """One kill, one recovery."""
    acknowledged = killed_at(state, number, opened)
    store = opened(state)
    kept = []
    if store.runs():
        kept = [
            f"{number}/{receipt.client}"
            for number in range(1, ROUNDS + 1)
            for receipt in store.receipts(RUN, number, Work.TRAIN)
        ]
    journey(store, lambda name: None)
    result = {"acknowledged": acknowledged, "kept": kept, "outcome": outcome(store)}
    store.close()
    return result


def main(folder: Path, inline_bytes: int) -> None:
    """Print {"undisturbed": outcome, "trials": {point: trial}}; blobs up to `inline_bytes` live in the database."""
    opened = partial(SqliteStore, durable=False, inline_bytes=inline_bytes)
    names = points(folder / "undisturbed", opened)
    store = opened(folder / "undisturbed")
    found = {"undisturbed": outcome(store), "trials": {}}
    store.close()
    for number, name in enumerate(names):
        found["trials"][f"{number} {name}"] = trial(folder / str(number), number, opened)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
