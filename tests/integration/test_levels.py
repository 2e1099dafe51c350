"""Clients that hold a part of the model: nested masks from one rank, over real gRPC, each with its own bytes."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedprune.mask import Mask

from .federation import Federation, run_file, task_file

LEVELS = (
    "run.rounds=6",
    "pruning.levels=[0.25, 0.5, 1.0]",
    "clients.densities={a = 0.25, b = 0.5, c = 1.0}",
    "pruning.every=2",
    "pruning.end=0.5",
    "pruning.floor=2",
)


def federation(folder: Path, *overrides: str) -> Federation:
    return Federation(folder=folder, task=task_file(folder), configs=[run_file(*LEVELS, *overrides)])


def ledger(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "runs" / "run" / "ledger.csv").read_text().splitlines()))


async def test_each_client_holds_the_models_values_on_its_own_mask(tmp_path: Path) -> None:
    run = federation(tmp_path)
    assert await run.run()
    held = {site.name: site.runner._replica for site in run.sites}
    whole = held["c"]
    assert whole is not None
    assert whole.mask is not None
    assert whole.mask.is_full
    before: Mask | None = None
    for name, density in (("a", 0.25), ("b", 0.5)):
        part = held[name]
        assert part is not None
        assert part.mask is not None
        assert abs(part.mask.density - density) < 0.05
        assert part.version is not None
        assert whole.version is not None
        assert part.version.model == whole.version.model
        assert part.version.mask != whole.version.mask
        assert before is None or before.within(part.mask)
        before = part.mask
        for tensor, array in part.weights.items():
            bits = part.mask.alive.get(tensor, np.ones(array.shape, np.bool_))
            assert (array[~bits] == 0).all()
            assert array[bits].tobytes() == whole.weights[tensor][bits].tobytes(), tensor


async def test_each_client_moves_as_many_bytes_as_it_holds(tmp_path: Path) -> None:
    wide = "def model():\n    return nn.Sequential(nn.Linear(6, 400), nn.ReLU(), nn.Linear(400, 60), nn.ReLU(), nn.Linear(60, 3))\n"
    task = task_file(tmp_path, model=wide)
    run = Federation(tmp_path, task, [run_file(*LEVELS, "compression.up='raw'", "compression.down='raw'")])
    assert await run.run()
    moved: Counter[tuple[int, str]] = Counter()
    for row in ledger(tmp_path):
        if row["kind"] == "values" and int(row["round"]) >= 5:
            moved[int(row["client"]), row["direction"]] += int(row["bytes"])
    assert run.report.client_densities == {"0": 0.25, "1": 0.5, "2": 1.0}
    free, prunable = 400 + 60 + 3 * 61, 6 * 400 + 400 * 60
    for direction in ("up", "down"):
        for client, density in enumerate((0.25, 0.5, 1.0)):
            assert moved[client, direction] == pytest.approx(2 * 4 * (free + density * prunable), rel=0.05)


@pytest.mark.parametrize("receipts", [4, 8])
async def test_a_run_that_is_cut_off_ends_with_the_same_model(tmp_path: Path, receipts: int) -> None:
    whole = Federation(tmp_path / "whole", task_file(tmp_path / "whole"), [run_file(*LEVELS)])
    assert await whole.run()
    folder = tmp_path / "cut"
    await Federation(folder, task_file(folder), [run_file(*LEVELS)]).cut_off(receipts=receipts)
    again = Federation(folder, folder / "task.py", [run_file(*LEVELS)])
    assert await again.run()
    assert again.model == whole.model


async def test_who_can_carry_more_holds_more(tmp_path: Path) -> None:
    """On loopback everyone is fast: all begin low, and hold the whole model soon."""
    run = Federation(
        tmp_path, task_file(tmp_path), [run_file("run.rounds=5", "pruning.levels=[0.25, 1.0]", "pruning.floor=2")]
    )
    assert await run.run()
    for site in run.sites:
        replica = site.runner._replica
        assert replica is not None
        assert replica.mask is not None
        assert replica.mask.is_full
    first = [row for row in ledger(tmp_path) if row["round"] == "1"]
    assert sum(int(row["bytes"]) for row in first if (row["direction"], row["kind"]) == ("up", "values")) < 3 * 4 * 300


async def test_clients_that_evaluate_do_so_with_what_they_hold(tmp_path: Path) -> None:
    task = task_file(tmp_path, test_data="")
    run = Federation(tmp_path, task, [run_file(*LEVELS, "training.held_out=0.3")])
    assert await run.run()
    assert all(row.accuracy is not None for row in run.rounds)
    down = Counter[str]()
    for row in ledger(tmp_path):
        down[row["kind"]] += int(row["bytes"]) * (row["direction"] == "down")
    # Nobody had to fetch a version anew to evaluate it.
    assert down["snapshot"] == 0


async def test_pruning_goes_on_under_the_levels(tmp_path: Path) -> None:
    keys = ("pruning.density=0.4", "pruning.start=0.0", "run.rounds=8")
    run = Federation(tmp_path, task_file(tmp_path), [run_file(*LEVELS, *keys)])
    assert await run.run()
    assert run.report.final.density == pytest.approx(0.4, abs=0.05)
    # Two levels at first (1 and 2), then the mask (3) and one level below it (4), twice: no version is used again.
    assert [row.mask_version for row in run.rounds] == [0, 3, 3, 5, 5, 5, 5, 5]
