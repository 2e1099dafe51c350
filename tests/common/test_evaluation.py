"""Loss and metrics: means over examples, the same wherever they are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from fedprune.errors import TaskError
from fedprune.evaluation import Evaluated, evaluate
from fedprune.task import load_task
from fedprune.torch import build_model, signature, to_arrays

WriteTask = Callable[..., Path]
MODEL = "def model():\n    return nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.5))\n"
LOSS = "def loss(model, batch):\n    return model(batch[0]).mean()\n"
METRICS = "def metrics(model, batch):\n    return {'size': len(batch[0]), 'top': model(batch[0]).max()}\n"
DATA = TensorDataset(torch.arange(6).float().unsqueeze(1))


def run(path: Path, data: object = DATA, *, weight: float = 2.0, batch_size: int = 4) -> Evaluated:
    task = load_task(path)
    model = build_model(task)
    schema = signature(model)
    weights = to_arrays(model, schema)
    weights["0.weight"] = np.full((1, 1), weight, np.float32)
    return evaluate(task, model, data, schema=schema, weights=weights, batch_size=batch_size)


def test_means_are_weighted_by_examples_and_dropout_is_off(write_task: WriteTask) -> None:
    found = run(write_task(model=MODEL, loss=LOSS, metrics=METRICS))
    # batches of 4 and 2: sizes weigh 4 * 4 + 2 * 2, tops 6 * 4 + 10 * 2
    assert found == Evaluated(examples=6, metrics={"loss": 5.0, "size": 20 / 6, "top": 44 / 6})


def test_the_batch_size_does_not_change_a_mean(write_task: WriteTask) -> None:
    path = write_task(model=MODEL, loss=LOSS)
    assert [run(path, batch_size=n).metrics["loss"] for n in (1, 3, 6)] == [5.0, 5.0, 5.0]


def test_no_data_gives_no_figures(write_task: WriteTask) -> None:
    assert run(write_task(model=MODEL, loss=LOSS), None) == Evaluated(examples=0, metrics={})


def test_a_loss_that_is_not_finite_is_reported(write_task: WriteTask) -> None:
    assert math.isnan(run(write_task(model=MODEL, loss=LOSS), weight=math.nan).metrics["loss"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("3", r"`metrics` does not return a dict \(got int"),
        ("{'top': 'high'}", r"`metrics` gives 'top' as something else \(got str, expected a number"),
        ("{'top': batch[0]}", r"`metrics` gives 'top' as something else \(got Tensor"),
        ("1 / 0", r"`metrics` failed at task.py line \d+: ZeroDivisionError"),
    ],
)
def test_metrics_that_are_none_name_the_function(write_task: WriteTask, returned: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        run(write_task(model=MODEL, loss=LOSS, metrics=f"def metrics(model, batch):\n    return {returned}\n"))


@pytest.mark.parametrize(
    ("returned", "seen"), [("model(batch[0])", r"a tensor of shape \[4, 1\]"), ("1.0", "float"), ("None", "NoneType")]
)
def test_a_loss_that_is_no_scalar_names_the_function(write_task: WriteTask, returned: str, seen: str) -> None:
    with pytest.raises(TaskError, match=rf"task.py: `loss` does not return a scalar \(got {seen}"):
        run(write_task(model=MODEL, loss=f"def loss(model, batch):\n    return {returned}\n"))


def test_the_global_generators_are_left_alone(write_task: WriteTask) -> None:
    path = write_task(model=MODEL, loss="def loss(model, batch):\n    return model(batch[0] * torch.rand(1)).mean()\n")
    before = torch.get_rng_state()
    first = run(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert run(path) == first
