"""Each kind of work is sealed as a frame that the other end can read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedprune.assignment import Assignment
from fedprune.codec import decode_update
from fedprune.mask import Mask
from fedprune.score_frames import read_growth, read_scores
from fedprune.task import Shard, load_task
from fedprune.tensor import Version
from fedprune.torch import build_model, signature, to_arrays
from fedprune.work import EvaluateWork, ReestimateWork, ScoreWork, TrainWork, Work
from fedprune_client.outbox import Outbox, Result
from fedprune_client.replica import Replica
from fedprune_client.residual import ResidualFile
from fedprune_client.scoring import score
from fedprune_client.training import Trainer
from fedprune_client.worker import Worker

WriteTask = Callable[..., Path]
NORM = "def model():\n    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))\n"
VERSION = Version(model=2, mask=1)


@pytest.fixture
def worker(write_task: WriteTask, tmp_path: Path) -> Worker:
    """A worker whose replica is half pruned."""
    path = write_task(model=NORM)
    task = load_task(path)
    model = build_model(task, seed=1)
    schema = signature(model)
    rng = np.random.default_rng(2)
    mask = Mask(schema=schema, version=1, alive={t.name: rng.random(t.shape) < 0.5 for t in schema.prunable})
    weights = to_arrays(model, schema)
    mask.apply(weights)
    return Worker(
        trainer=Trainer.load(task, model, schema, Shard(index=0, count=1, path=tmp_path, seed=1), 0.2),
        replica=Replica(schema=schema, version=VERSION, weights=dict(weights), mask=mask),
        outbox=Outbox(tmp_path / "outbox"),
        residual=ResidualFile(folder=tmp_path / "residual", say=lambda text: None),
    )


def assignment(work: Work) -> Assignment:
    return Assignment(assignment_id=9, run_id="run", round=3, version=VERSION, deadline_s=60.0, work=work)


def do(worker: Worker, work: Work) -> tuple[Result, bytes]:
    worker.do(assignment(work), lambda step, steps: None, lambda: False)
    sealed = worker.outbox.get("run", 9)
    assert sealed is not None
    assert sealed[0].version == VERSION
    return sealed


def mask_of(worker: Worker) -> Mask:
    assert worker.replica.mask is not None
    return worker.replica.mask


def test_training_seals_weights_that_stay_in_the_mask(worker: Worker) -> None:
    result, frame = do(worker, TrainWork())
    held, mask = worker.replica, mask_of(worker)
    weights = decode_update(frame, schema=held.schema, mask=mask, base=held.weights)
    assert (result.examples, set(result.metrics)) == (30, {"loss"})
    assert not weights["0.weight"][~mask.alive["0.weight"]].any()
    assert not np.array_equal(weights["0.weight"], held.weights["0.weight"])


def test_evaluation_seals_figures_alone(worker: Worker) -> None:
    result, frame = do(worker, EvaluateWork())
    assert (result.examples, set(result.metrics), frame) == (7, {"loss"}, b"")


def test_scores_are_sealed_for_what_is_alive(worker: Worker) -> None:
    work = ScoreWork(method="snip", seed=4)
    result, frame = do(worker, work)
    mask = mask_of(worker)
    expected = score(worker.trainer, worker.replica.weights, mask, work, stop=lambda: False)
    assert expected is not None
    assert expected.scores is not None
    found = read_scores(memoryview(frame), mask, VERSION)
    assert result.examples == 30
    assert np.array_equal(found["0.weight"], np.where(mask.alive["0.weight"], expected.scores["0.weight"], 0))


def test_votes_are_sealed_for_what_is_dead(worker: Worker) -> None:
    _, frame = do(worker, ScoreWork(method="gradient", grow=(4,)))
    places, gradients = read_growth(memoryview(frame), mask_of(worker), VERSION)
    assert len(places["0.weight"]) == len(gradients["0.weight"]) == 4
    assert not mask_of(worker).alive["0.weight"].reshape(-1)[places["0.weight"]].any()


def test_reestimation_seals_an_update_in_which_statistics_alone_moved(worker: Worker) -> None:
    result, frame = do(worker, ReestimateWork())
    held = worker.replica
    weights = decode_update(frame, schema=held.schema, mask=mask_of(worker), base=held.weights)
    moved = [name for name in weights if not np.array_equal(weights[name], held.weights[name])]
    assert (result.examples, moved) == (30, ["1.running_mean", "1.running_var"])


@pytest.mark.parametrize("work", [TrainWork(), ScoreWork(method="snip"), ReestimateWork()])
def test_work_that_was_stopped_seals_nothing(worker: Worker, work: Work) -> None:
    worker.do(assignment(work), lambda step, steps: None, lambda: True)
    assert worker.outbox.get("run", 9) is None
