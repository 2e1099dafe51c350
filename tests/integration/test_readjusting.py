"""Clients that exchange weights in masks of their own (FedDST): proposed, trained for a round, averaged, pruned back."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedprune.codec import Limits, decode_mask_set
from fedprune.mask import Mask
from fedprune.parts import PartKind
from fedprune.task import load_task
from fedprune.tensor import Schema
from fedprune.torch import assign_roles, build_model, signature
from fedprune_client import encoding
from fedprune_client.replica import Replica
from fedprune_client.scoring import Scored

from .federation import Federation, run_file, task_file

LOCAL = (
    "run.rounds=6",
    "pruning.preset='feddst'",
    "pruning.density=0.4",
    "pruning.every=2",
    "pruning.start=0.0",
    "pruning.end=0.9",
    "pruning.floor=4",
)
# Round 2 and 4 end with masks of the clients' own; 3 and 5 with one for all.
EXCHANGES, SETTLED = (2, 4), (3, 5)


def mask_of(folder: Path, schema: Schema, version: int) -> Mask:
    data = (folder / "runs" / "run" / "masks" / f"v{version}.mask").read_bytes()
    return decode_mask_set(data, schema=schema, version=version, base=None, limits=Limits.of_mask(schema))


def counts(mask: Mask) -> dict[str, int]:
    return {name: int(bits.sum()) for name, bits in mask.alive.items()}


async def test_each_client_exchanges_in_a_mask_of_its_own_and_the_budget_comes_back(tmp_path: Path) -> None:
    task = task_file(tmp_path)
    schema = assign_roles(signature(build_model(load_task(task))), [], [])
    run = Federation(tmp_path, task, [run_file(*LOCAL)])
    assert await run.run()
    rows = {row.round: row for row in run.rounds}
    assert [n for n, row in rows.items() if row.mask_changed] == [2, 3, 4, 5]
    first = counts(mask_of(tmp_path, schema, rows[1].mask_version))
    for exchanged, settled in zip(EXCHANGES, SETTLED, strict=True):
        before = mask_of(tmp_path, schema, rows[exchanged].mask_version - 1) if exchanged == 2 else None
        together = mask_of(tmp_path, schema, rows[exchanged].mask_version)
        after = mask_of(tmp_path, schema, rows[settled].mask_version)
        # Three masks of the same size that differ are more together, and one of that size again when they are merged.
        assert together.alive_count > sum(first.values())
        assert counts(after) == first
        assert after.within(together)
        assert before is None or not after.within(before)
        assert sum(layer.grown for layer in rows[exchanged].layers) > 0
        # A version of the mask for all of them together, one for each client, and the next for all.
        assert rows[settled].mask_version == rows[exchanged].mask_version + 4
    assert [row.clients_counted for row in run.rounds] == [3] * 6


async def test_clients_train_what_they_proposed_and_follow_by_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, proposed, trained = list[PartKind](), list[str](), set[str]()
    apply, encode, exact = Replica.apply, encoding.encode_scored, encoding.encode

    def applying(self: Replica, part: Any, data: memoryview) -> None:
        kinds.append(part.kind)
        apply(self, part, data)

    def proposing(assignment: Any, mask: Mask, scored: Scored) -> bytes:
        assert scored.proposed is not None
        assert counts(scored.proposed) == counts(mask)
        proposed.append(scored.proposed.fingerprint)
        return encode(assignment, mask, scored)

    def training(assignment: Any, replica: Replica, weights: Any, residual: Any) -> Any:
        assert replica.mask is not None
        if assignment.round in SETTLED:
            trained.add(replica.mask.fingerprint)
            assert all((weights[n][~bits] == 0).all() for n, bits in replica.mask.alive.items())
        return exact(assignment, replica, weights, residual)

    monkeypatch.setattr(Replica, "apply", applying)
    monkeypatch.setattr("fedprune_client.worker.encode_scored", proposing)
    monkeypatch.setattr("fedprune_client.worker.encode", training)
    run = Federation(tmp_path, task_file(tmp_path), [run_file(*LOCAL)])
    assert await run.run()
    assert len(set(proposed)) == 6
    assert trained == set(proposed)
    # The whole model once for each client; from then on differences, of masks too.
    assert kinds.count(PartKind.MODEL) == 3
    rows = list(csv.DictReader((tmp_path / "runs" / "run" / "ledger.csv").read_text().splitlines()))
    assert {row["kind"] for row in rows if row["direction"] == "up"} >= {"mask", "values"}


async def test_a_client_that_keeps_more_than_it_gives_up_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, lies = encoding.encode_scored, list[int]()

    def lie(assignment: Any, mask: Mask, scored: Scored) -> bytes:
        if not lies:
            lies.append(assignment.assignment_id)
            greedy = {name: np.ones_like(bits) for name, bits in mask.alive.items()}
            scored = replace(scored, proposed=Mask(schema=mask.schema, version=mask.version + 1, alive=greedy))
        return honest(assignment, mask, scored)

    monkeypatch.setattr("fedprune_client.worker.encode_scored", lie)
    run = Federation(tmp_path, task_file(tmp_path), [run_file(*LOCAL)])
    assert await run.run()
    assert any("exchanges more of" in said for said in run.said)
    assert [row.clients_counted for row in run.rounds] == [3] * 6
    assert run.report.final.density == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("receipts", [5, 10, 13])
async def test_a_run_that_is_cut_off_ends_with_the_same_model(tmp_path: Path, receipts: int) -> None:
    """While clients train before the exchange, propose, and train masks of their own."""
    whole = Federation(tmp_path / "whole", task_file(tmp_path / "whole"), [run_file(*LOCAL)])
    assert await whole.run()
    folder = tmp_path / "cut"
    await Federation(folder, task_file(folder), [run_file(*LOCAL)]).cut_off(receipts=receipts)
    again = Federation(folder, folder / "task.py", [run_file(*LOCAL)])
    assert await again.run()
    assert again.model == whole.model


def _joined(site: Any) -> Callable[[], bool]:
    return lambda: any(said.startswith("joined") for said in site.said)
