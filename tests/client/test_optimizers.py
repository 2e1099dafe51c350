"""The optimizers a run file names do what torch's plain ones do; a task's own goes before them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from fedprune.config import TrainingSection
from fedprune.errors import LocalError, TaskError
from fedprune.task import load_task
from fedprune.torch import build_model
from fedprune.work import TrainWork
from fedprune_client.optimizers import OPTIMIZERS, make_optimizer

WriteTask = Callable[..., Path]
PLAIN: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.8, weight_decay=0.02),
    "adamw": lambda m: AdamW(m.parameters(), lr=0.1, weight_decay=0.02),
}


@pytest.mark.parametrize("name", PLAIN)
def test_they_step_like_the_plain_ones(write_task: WriteTask, name: str) -> None:
    task = load_task(write_task())
    one, other = build_model(task, seed=1), build_model(task, seed=1)
    work = TrainWork(optimizer=name, learning_rate=0.1, momentum=0.8, weight_decay=0.02)
    for model, optimizer in ((one, make_optimizer(task, one, work)), (other, PLAIN[name](other))):
        for _ in range(5):
            optimizer.zero_grad()
            torch.autograd.backward(model(torch.ones(3, 4)).square().sum())
            optimizer.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_every_name_of_the_run_file_is_there() -> None:
    assert set(get_args(TrainingSection.model_fields["optimizer"].annotation)) == set(OPTIMIZERS)


def test_an_unknown_name_is_refused(write_task: WriteTask) -> None:
    task = load_task(write_task())
    with pytest.raises(LocalError, match=r"training.optimizer is not known \(got 'lion', expected sgd \| adamw\)"):
        make_optimizer(task, build_model(task), TrainWork(optimizer="lion"))


def test_frozen_parameters_are_not_stepped(write_task: WriteTask) -> None:
    task = load_task(write_task())
    model = build_model(task)
    model.get_parameter("0.weight").requires_grad_(False)
    (group,) = make_optimizer(task, model, TrainWork()).param_groups
    assert len(group["params"]) == len(list(model.parameters())) - 1


def test_the_task_goes_first_and_must_give_an_optimizer(write_task: WriteTask) -> None:
    own = "def optimizer(model):\n    return torch.optim.Adagrad(model.parameters())\n"
    task = load_task(write_task(optimizer=own))
    assert type(make_optimizer(task, build_model(task), TrainWork())).__name__ == "Adagrad"
    task = load_task(write_task(optimizer="def optimizer(model):\n    return 0.1\n"))
    with pytest.raises(TaskError, match=r"`optimizer` returns no optimizer \(got float"):
        make_optimizer(task, build_model(task), TrainWork())
