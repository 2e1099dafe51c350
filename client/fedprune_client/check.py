"""`fedprune check`: a task file held to its promises on this machine alone, before anything is connected.

The file is run, its model built twice, one batch trained and one measured, in the order in which a federation would
find the mistakes. What comes back also says what the model weighs, dense and pruned.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedprune.batches import batches, check_data, is_indexed
from fedprune.errors import SignatureError, TaskError
from fedprune.evaluation import measure
from fedprune.mask import Mask
from fedprune.task import Shard, Task, load_task
from fedprune.tensor import Role, Schema
from fedprune.torch import build_model, seeded, signature, to_arrays
from fedprune.work import TrainWork
from fedprune_client.training import Trained, Trainer

DENSITIES = (0.5, 0.1, 0.05)
HELD_OUT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a task is. `examples` and `held_out` are counts, None where the data has no length. `weighs` pairs a
    density of the prunable weights with the bytes of one round in one direction for one client: four for each float
    that is left, before any coding. `train_loss` is that of the first batch; `metrics` are those of one batch."""

    task: Path
    digest: str
    tensors: int
    parameters: int
    prunable: int
    protected: tuple[str, ...]
    examples: int | None
    held_out: int | None
    test_examples: int | None
    train_loss: float | None
    metrics: dict[str, float]
    dense_bytes: int
    weighs: tuple[tuple[float, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: plain values only."""
        return asdict(self) | {"task": str(self.task), "weighs": {f"{d:g}": size for d, size in self.weighs}}


def check(path: Path | str, *, data: Path | None = None, index: int = 0, count: int = 1, seed: int = 1) -> CheckReport:
    """Try the task file as client `index` of `count` would, with `data` as `shard.path`. `TaskError` says in one
    sentence what is wrong and in which function."""
    task = load_task(path)
    model, schema = _model(task)
    shard = Shard(index=index, count=count, path=data or task.path.parent, seed=seed)
    trainer = Trainer.load(task, model, schema, shard, HELD_OUT)
    trained = _one_step(trainer)
    test = _test_data(task)
    sample = next(x for x in (test, trainer.held_out, trainer.training) if x is not None)
    return CheckReport(
        task=task.path,
        digest=task.digest,
        tensors=len(schema),
        parameters=schema.parameters,
        prunable=sum(t.size for t in schema.prunable),
        protected=tuple(t.name for t in schema.of(Role.FREE) if len(t.shape) > 1),
        examples=_count(trainer.training),
        held_out=_count(trainer.held_out),
        test_examples=_count(test),
        train_loss=trained.metrics.get("loss"),
        metrics=_one_batch(task, model, sample),
        dense_bytes=schema.dense_bytes,
        weighs=tuple((density, bytes_at(schema, density)) for density in DENSITIES),
    )


def bytes_at(schema: Schema, density: float) -> int:
    """Bytes of the `raw` model when this share of the prunable weights is left and both ends hold the mask."""
    prunable = sum(t.size for t in schema.prunable)
    return schema.dense_bytes - 4 * (prunable - round(density * prunable))


def describe(report: CheckReport) -> str:
    """The report as a few lines of text."""
    protected = f"; protected: {', '.join(report.protected)}" if report.protected else ""
    lines = [
        f"{report.task.name} is a good task",
        f"  model     {report.parameters:,} weights in {report.tensors} tensors, {report.prunable:,} can be pruned{protected}",
        f"  data      {_say(report.examples)} for training, {_say(report.held_out)} held out",
        f"  one step  {_figures({'loss': report.train_loss} if report.train_loss is not None else {})}",
        f"  measured  {_figures(report.metrics)}",
        f"  dense     {report.dense_bytes:,} bytes per client, round and direction, before coding",
    ]
    if report.test_examples is not None:
        lines.insert(3, f"  test      {report.test_examples:,} examples on the coordinator")
    for density, size in report.weighs:
        lines.append(f"  at {density:<6g} {size:,} bytes, {report.dense_bytes / size:.1f} times fewer")
    return "\n".join(lines)


def _model(task: Task) -> tuple[nn.Module, Schema]:
    model = build_model(task, seed=0)
    schema = signature(model)
    try:
        schema.check_same_model(signature(build_model(task, seed=1)), party="the second call")
    except SignatureError as error:
        raise TaskError(
            f"`model` gives another model each time: {error.problem}",
            party=task.path.name,
            seen=error.seen,
            expected=error.expected,
            next_step="Shapes must not depend on chance or on anything outside the function",
        ) from error
    return model, schema


def _one_step(trainer: Trainer) -> Trained:
    weights = to_arrays(trainer.model, trainer.schema)
    work = TrainWork(steps=1, learning_rate=1e-3, momentum=0.0)
    mask = Mask.full(trainer.schema)
    trained = trainer.train(weights, mask, work, on_step=lambda step, steps: None, stop=lambda: False)
    assert trained is not None  # nobody told it to stop
    return trained


def _test_data(task: Task) -> Any | None:
    if task.test_data is None:
        return None
    data = task.test_data()
    check_data(data, function="test_data", party=task.path.name)
    return data


def _one_batch(task: Task, model: nn.Module, data: Any) -> dict[str, float]:
    model.eval()
    with seeded(0), torch.no_grad():
        figures = measure(task, model, next(iter(batches(data, 32, None))))
    for name, value in figures.items():
        if not isfinite(value):
            raise TaskError(f"{name!r} is not a finite number on one batch", party=task.path.name, seen=value)
    return figures


def _count(data: Any) -> int | None:
    return len(data) if is_indexed(data) else None


def _say(count: int | None) -> str:
    return "no known number of examples" if count is None else f"{count:,} examples"


def _figures(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()) or "your own loop ran"
