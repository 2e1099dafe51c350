"""Holds what a trial left on the disk, and what its clients heard, against the promises."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from safetensors.numpy import load_file

from fedprune.v1 import coordinator_pb2 as pb
from fedprune_lab.faults.oracle import final_model
from fedprune_lab.faults.plan import RUN, Found
from fedprune_lab.faults.scripted import Scripted
from fedprune_server.store import RunState, SqliteStore, Store, Work, verify


def judge(found: Found, clients: Sequence[Scripted], folder: Path) -> None:
    """Add to `found` whatever is wrong: lost, counted twice, worked on twice, another model, damaged, unfinished."""
    run = folder / "runs" / RUN
    found.problems += verify(run).problems
    with closing(SqliteStore(run / "state")) as store:
        _judge_store(found, store)
        _judge_receipts(found, store, clients)
    _compare_models(found, folder)
    lines = (run / "rounds.jsonl").read_text().splitlines()
    if len(lines) != len(found.accepted):
        found.problems.append(f"rounds.jsonl has {len(lines)} lines for {len(found.accepted)} rounds")


def _judge_store(found: Found, store: Store) -> None:
    (run,) = store.runs()
    if run.state is not RunState.FINISHED:
        found.problems.append(f"the run is {run.state.value}")
    names = {client.client: client.identity for client in store.clients()}
    committed = set(store.reports(run.run_id))
    for round_ in range(1, found.plan.rounds + 1):
        who = [names[r.client] for r in store.receipts(run.run_id, round_, Work.TRAIN)]
        if len(set(who)) != len(who):
            found.problems.append(f"round {round_} counts a client twice: {who}")
        if round_ in committed:
            found.accepted.append((round_, who))
        elif who:
            found.problems.append(f"round {round_} has receipts and no version")


def _judge_receipts(found: Found, store: Store, clients: Sequence[Scripted]) -> None:
    (run,) = store.runs()
    rounds, kinds = range(1, found.plan.rounds + 1), (Work.TRAIN, Work.EVALUATE)
    kept = {(r.assignment_id, r.sha256) for n in rounds for kind in kinds for r in store.receipts(run.run_id, n, kind)}
    for client in clients:
        found.receipts += len(client.receipts)
        for receipt, sha256 in client.receipts:
            if receipt.verdict == pb.VERDICT_ACCEPTED and (receipt.assignment_id, sha256) not in kept:
                found.problems.append(f"lost: {client.name} has a receipt for assignment {receipt.assignment_id}")
        if len(set(client.trained)) != len(client.trained):
            found.problems.append(f"{client.name} worked twice on one assignment: {client.trained}")


def _compare_models(found: Found, folder: Path) -> None:
    plan = found.plan
    expected = final_model(plan.config(folder), plan.model.schema, plan.model.first(), found.accepted)
    actual = load_file(folder / "runs" / RUN / "model.safetensors")
    differing = [name for name, array in expected.items() if array.tobytes() != actual[name].tobytes()]
    if differing:
        found.problems.append(f"the model is not the one of its accepted sets: {', '.join(differing)} differ")
