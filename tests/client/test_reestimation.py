"""Statistics measured anew are those of the data under the given weights, and nothing else moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fedprune.mask import Mask
from fedprune.task import Shard, load_task
from fedprune.torch import Arrays, build_model, signature, to_arrays
from fedprune.work import ReestimateWork, TrainWork
from fedprune_client.reestimation import Reestimated, reestimate
from fedprune_client.training import Trainer

WriteTask = Callable[..., Path]
NORM = (
    "def model():\n"
    "    return nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))\n"
)


def open_trainer(path: Path) -> tuple[Trainer, Arrays]:
    task = load_task(path)
    model = build_model(task, seed=1)
    schema = signature(model)
    trainer = Trainer.load(task, model, schema, Shard(index=0, count=1, path=path.parent, seed=1), 0.0)
    full = Mask.full(schema)
    trained = trainer.train(
        to_arrays(model, schema), full, TrainWork(), on_step=lambda step, steps: None, stop=lambda: False
    )
    assert trained is not None
    return trainer, trained.weights


def run(trainer: Trainer, weights: Arrays, **work: int) -> Reestimated:
    found = reestimate(trainer, weights, ReestimateWork(**work), stop=lambda: False)
    assert found is not None
    return found


def test_one_batch_of_everything_gives_mean_and_variance(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task(model=NORM))
    found = run(trainer, weights, batch_size=37)
    hidden = trainer.training.tensors[0].numpy() @ weights["1.weight"].T + weights["1.bias"]
    np.testing.assert_allclose(found.weights["2.running_mean"], hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(found.weights["2.running_var"], hidden.var(0, ddof=1), atol=1e-5)
    assert found.examples == 37


def test_weights_and_counters_do_not_move_and_buffers_do(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task(model=NORM))
    found = run(trainer, weights, batches=1)
    moved = [name for name in weights if not np.array_equal(found.weights[name], weights[name])]
    assert moved == ["2.running_mean", "2.running_var"]
    assert found.weights["2.num_batches_tracked"] == 2


def test_the_same_work_gives_the_same_bits_and_training_goes_on_as_before(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task(model=NORM))
    state = torch.get_rng_state()
    one, same, other = (run(trainer, weights, seed=seed, batches=1).weights["2.running_var"] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    fresh, _ = open_trainer(trainer.task.path)
    ends = [
        t.train(weights, Mask.full(t.schema), TrainWork(), on_step=lambda step, steps: None, stop=lambda: False)
        for t in (trainer, fresh)
    ]
    assert ends[0] is not None
    assert ends[1] is not None
    assert all(np.array_equal(ends[0].weights[n], ends[1].weights[n]) for n in weights)


def test_batches_are_as_many_as_asked_and_a_stop_gives_nothing(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task(model=NORM))
    assert run(trainer, weights, batches=2, batch_size=8).examples == 16
    assert reestimate(trainer, weights, ReestimateWork(), stop=lambda: True) is None


def test_a_model_without_norms_comes_back_as_it_was(write_task: WriteTask) -> None:
    trainer, weights = open_trainer(write_task())
    found = run(trainer, weights)
    assert all(np.array_equal(found.weights[n], weights[n]) for n in weights)
