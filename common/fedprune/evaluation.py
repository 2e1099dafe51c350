"""Loss and metrics on data kept out of training: one function for a client's held-out share and the coordinator's
`test_data()`, so that the two figures mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.batches import batches, examples_in, guarded
from fedprune.errors import TaskError
from fedprune.task import Task, UserCode
from fedprune.tensor import Schema
from fedprune.torch import load_arrays, seeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """Means over `examples` examples: always `loss`, and whatever the task's `metrics` gives. A loss that is not
    finite is reported as it is. No examples: no metrics."""

    examples: int
    metrics: dict[str, float]


def evaluate(
    task: Task,
    model: nn.Module,
    data: Any | None,
    *,
    schema: Schema,
    weights: Mapping[str, NDArray[Any]],
    batch_size: int,
    source: str = "train_data",
) -> Evaluated:
    """Load `weights` into `model` and measure it on `data` (None: nothing to measure on) in evaluation mode, without
    gradients. `source` is the task function that gave the data, for messages. `TaskError` from the task's code."""
    if data is None:
        return Evaluated(examples=0, metrics={})
    load_arrays(model, schema, weights)
    model.eval()
    reading = UserCode(task.path, f"reading `{source}`")
    sums: dict[str, float] = {}
    examples = 0
    with seeded(0), torch.no_grad():
        for batch in guarded(batches(data, batch_size, None), reading):
            count = examples_in(batch)
            for name, value in measure(task, model, batch).items():
                sums[name] = sums.get(name, 0.0) + value * count
            examples += count
    return Evaluated(examples=examples, metrics={name: total / examples for name, total in sums.items()})


def scalar_loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """The task's loss, which must be a tensor with one element."""
    loss: object = task.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        seen = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(
            "`loss` does not return a scalar",
            party=task.path.name,
            seen=seen,
            expected="a tensor with one element",
            next_step="Average over the batch",
        )
    return loss


def measure(task: Task, model: nn.Module, batch: Any) -> dict[str, float]:
    """Loss and metrics of one batch, checked to be numbers; gradients and modes are the caller's affair."""
    loss = float(scalar_loss(task, model, batch))
    if task.metrics is None:
        return {"loss": loss}
    metrics = task.metrics(model, batch)
    if not isinstance(metrics, Mapping):
        seen = type(metrics).__name__
        raise TaskError("`metrics` does not return a dict", party=task.path.name, seen=seen, expected="name -> number")
    return {name: _number(task, name, value) for name, value in metrics.items()} | {"loss": loss}


def _number(task: Task, name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    if isinstance(value, Real):
        return float(value)
    seen = type(value).__name__
    raise TaskError(f"`metrics` gives {name!r} as something else", party=task.path.name, seen=seen, expected="a number")
