"""After a change of the mask clients measure batch norm's statistics anew, before anybody evaluates (FedTiny)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedprune.applying import Array
from fedprune.errors import StoreError, TaskError
from fedprune.task import Shard, load_task
from fedprune_client import worker
from fedprune_client.reestimation import Reestimated, reestimate
from fedprune_server.closing import Closing

from .federation import Federation, run_file, task_file

NORMED = """
def model():
    return nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
"""
ONCE = (
    "run.rounds=4",
    "pruning.density=0.3",
    "pruning.schedule='once'",
    "pruning.start=0.5",
    "pruning.end=1.0",
    "pruning.floor=4",
)
# The mask changes at the end of this round.
CHANGED = 2


def federation(folder: Path, *overrides: str, model: str = NORMED, test_data: str | None = None) -> Federation:
    more = {} if test_data is None else {"test_data": test_data}
    return Federation(folder, task_file(folder, model=model, **more), [run_file(*ONCE, *overrides)])


def watching(monkeypatch: pytest.MonkeyPatch) -> list[Reestimated]:
    found: list[Reestimated] = []

    def watched(*args: Any, **more: Any) -> Reestimated | None:
        measured = reestimate(*args, **more)
        if measured is not None:
            found.append(measured)
        return measured

    monkeypatch.setattr(worker, "reestimate", watched)
    return found


async def test_the_version_after_a_mask_change_has_the_statistics_of_all_data_under_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means and variances of the union, as one process finds them that has everybody's rows."""
    measured = watching(monkeypatch)
    versions: list[dict[str, Array]] = []
    remeasure = Closing.remeasure

    def watched(self: Closing, round_: int) -> Any:
        found = remeasure(self, round_)
        versions.append({name: np.array(a) for name, a in found.prepared.arrays.items()} if found.prepared else {})
        return found

    monkeypatch.setattr(Closing, "remeasure", watched)
    run = federation(tmp_path, "training.held_out=0.0")
    assert await run.run()
    assert len(measured) == 3
    assert [row.model_version for row in run.rounds] == [1, 3, 4, 5]
    assert [row.mask_changed for row in run.rounds] == [False, True, False, False]
    (after,) = versions
    for name in ("0.weight", "3.weight", "1.weight"):
        assert all(after[name].tobytes() == one.weights[name].tobytes() for one in measured), name
    task = load_task(tmp_path / "task.py")
    shards = [task.train_data(Shard(index=n, count=3, path=tmp_path, seed=1)) for n in range(3)]
    rows = torch.cat([torch.stack([row for row, _ in shard]) for shard in shards])
    hidden = torch.nn.functional.linear(rows, torch.tensor(after["0.weight"]), torch.tensor(after["0.bias"]))
    # Batches are averaged, so that small batches make the figures a little other than those of all rows at once.
    np.testing.assert_allclose(after["1.running_mean"], hidden.mean(0), atol=0.1)
    np.testing.assert_allclose(after["1.running_var"], hidden.var(0), rtol=0.35, atol=0.02)


@pytest.mark.parametrize("test_data", [None, ""])
async def test_what_is_evaluated_is_the_model_with_its_new_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test_data: str | None
) -> None:
    """By the coordinator or by clients: never the statistics of the network before the mask."""
    evaluated: list[tuple[int, int]] = []
    run = federation(tmp_path, "training.held_out=0.3", test_data=test_data)
    prepared = Closing._evaluate

    def watched(self: Closing, round_: int, arrays: Any) -> Any:
        evaluated.append((round_, self.versions.latest.version.model))
        return prepared(self, round_, arrays)

    monkeypatch.setattr(Closing, "_evaluate", watched)
    assert await run.run()
    assert [row.round for row in run.rounds] == [1, 2, 3, 4]
    assert all(row.accuracy is not None for row in run.rounds)
    # Each round is evaluated once, the changed one after the version with its mask was the latest.
    assert evaluated == [(1, 0), (2, 2), (3, 3), (4, 4)]


async def test_models_without_statistics_and_runs_that_do_not_want_it_lose_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = watching(monkeypatch)
    plain = Federation(tmp_path / "plain", task_file(tmp_path / "plain"), [run_file(*ONCE)])
    assert await plain.run()
    unwanted = federation(tmp_path / "off", "pruning.reestimate=false")
    assert await unwanted.run()
    assert not measured
    for run in (plain, unwanted):
        assert [row.model_version for row in run.rounds] == [1, 2, 3, 4]


@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize("point", ["statistics-folded", "version-adopted", "assignments-sent"])
async def test_a_coordinator_that_breaks_around_the_measuring_comes_to_the_same_model(
    tmp_path: Path, point: str, share: float
) -> None:
    part = f"clients.share={share}"
    whole = federation(tmp_path / "whole", part)
    assert await whole.run()
    folder = tmp_path / "cut"
    first, seen = federation(folder, part), list[str]()

    def die(reached: str) -> None:
        seen.append(reached)
        # The version with the new mask is the second; the one with its statistics the third.
        after = {"statistics-folded": 1, "version-adopted": 2, "assignments-sent": 3}[point]
        if reached == point and seen.count(point) == after:
            raise StoreError("cut off here")

    first.server.failpoint = die
    with pytest.raises(StoreError, match="cut off here"):
        await first.run()
    again = federation(folder, part)
    assert await again.run()
    assert again.model == whole.model
    assert again.report.final.accuracy == whole.report.final.accuracy
    assert [row.model_version for row in again.report.rounds] == [1, 3, 4, 5]


async def test_where_no_client_can_measure_the_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **more: Any) -> Reestimated | None:
        raise TaskError("no statistics today")

    monkeypatch.setattr(worker, "reestimate", broken)
    run = federation(tmp_path)
    assert await run.run()
    assert [row.clients_counted for row in run.rounds] == [3, 3, 3, 3]
    assert any("measured the statistics" in said for said in run.said)
    assert all(row.accuracy is not None for row in run.rounds)
