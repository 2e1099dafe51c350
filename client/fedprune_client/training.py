"""Masked local training: (weights, mask, data, work) -> weights, examples, metrics.

The same work on the same data gives the same bits (one torch thread): shuffling draws from its own generator, and the
global generators, which dropout and augmentation use, are set for the duration and put back. A task with its own
`train` gets the same mask, progress and proximal term, because all three sit on the optimizer's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from math import isfinite
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedprune.batches import batches, check_data, examples_in, guarded, is_indexed, split, steps_in_pass
from fedprune.errors import TaskError
from fedprune.evaluation import Evaluated, evaluate, scalar_loss
from fedprune.mask import Mask
from fedprune.task import Shard, Task, UserCode
from fedprune.tensor import Schema
from fedprune.torch import Arrays, MaskHook, load_arrays, seeded, to_arrays
from fedprune.work import EvaluateWork, TrainWork
from fedprune_client.distilling import Teacher
from fedprune_client.optimizers import make_optimizer
from fedprune_client.steps import StepWatch, Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Local weights after training (all tensors of the schema), the examples they stand for, and what was seen.
    `metrics` holds the mean training `loss`, or nothing after a task's own `train`."""

    weights: Arrays
    examples: int
    metrics: dict[str, float]
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainContext:
    """What a task's own `train(model, data, ctx)` is given; it may use all of it or none."""

    task: Task
    work: TrainWork
    generator: torch.Generator

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The task's `optimizer`, else the run file's."""
        return make_optimizer(self.task, model, self.work)

    def batches(self, data: Any) -> Iterator[Any]:
        """The batches of the whole assignment: all its epochs, or the first `work.steps` of them."""
        reading = UserCode(self.task.path, "reading `train_data`")
        passes = (batches(data, self.work.batch_size, self.generator) for _ in range(self.work.epochs))
        return islice(guarded(chain.from_iterable(passes), reading), self.work.steps or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainer:
    """A model and its owner's data, kept from round to round so that a round costs its steps and little else."""

    task: Task
    model: nn.Module
    schema: Schema
    training: Any
    held_out: Any | None

    @classmethod
    def load(
        cls, task: Task, model: nn.Module, schema: Schema, shard: Shard, held_out: float, fold: int = 0
    ) -> Trainer:
        """Read the shard's data and keep the share `held_out` of it apart, the same for the same shard, seed and fold."""
        data = task.train_data(shard)
        check_data(data, function="train_data", party=f"{task.path.name}, shard {shard.index} of {shard.count}")
        training, apart = split(data, held_out, shard.seed + shard.index, fold)
        return cls(task=task, model=model, schema=schema, training=training, held_out=apart)

    def train(
        self,
        weights: Mapping[str, NDArray[Any]],
        mask: Mask,
        work: TrainWork,
        *,
        on_step: Callable[[int, int], None],
        stop: Callable[[], bool],
        teacher: Mapping[str, NDArray[Any]] | None = None,
    ) -> Trained | None:
        """Train from `weights` under `mask`, with `work.distill` towards the answers of a model with the weights of
        `teacher`; None when `stop()` was true after a step. `TaskError` from the task's code, and when the loss is no longer
        a finite number."""
        load_arrays(self.model, self.schema, weights)
        self.model.train()
        planned = work.epochs * steps_in_pass(self.training, work.batch_size) or work.steps
        planned = min(planned, work.steps or planned)
        watch = StepWatch(self.model, planned, on_step, stop, proximal=work.proximal)
        context = TrainContext(task=self.task, work=work, generator=torch.Generator().manual_seed(work.seed))
        taught = self._taught(work, teacher)
        try:
            with seeded(work.seed), MaskHook(self.model, mask), watch:
                examples, metrics = self._loop(context, taught) if self.task.train is None else self._own_loop(context)
        except Stopped:
            return None
        arrays = to_arrays(self.model, self.schema)
        return Trained(weights=arrays, examples=examples, metrics=metrics, steps=watch.taken)

    def evaluate(self, weights: Mapping[str, NDArray[Any]], work: EvaluateWork) -> Evaluated:
        """Measure `weights` on the held-out share; no examples where nothing could be kept apart."""
        return evaluate(
            self.task, self.model, self.held_out, schema=self.schema, weights=weights, batch_size=work.batch_size
        )

    def _taught(self, work: TrainWork, weights: Mapping[str, NDArray[Any]] | None) -> Teacher | None:
        if weights is None or not work.distill:
            return None
        return Teacher.of(self.model, self.schema, weights, share=work.distill, party=self.task.path.name)

    def _loop(self, context: TrainContext, teacher: Teacher | None) -> tuple[int, dict[str, float]]:
        """The default loop: (examples of one pass, mean loss over all batches; that of the task, without a teacher's)."""
        optimizer = context.optimizer(self.model)
        total, seen = 0.0, 0
        with teacher.beside(self.model) if teacher else nullcontext():
            for batch in context.batches(self.training):
                optimizer.zero_grad(set_to_none=True)
                loss = differentiable_loss(self.task, self.model, batch)
                total += _finite(self.task, loss) * examples_in(batch)
                seen += examples_in(batch)
                torch.autograd.backward(teacher.blend(loss) if teacher else loss)
                optimizer.step()
        if seen == 0:
            raise TaskError("`train_data` gives no batches", party=self.task.path.name)
        examples = len(self.training) if is_indexed(self.training) else -(-seen // context.work.epochs)
        return examples, {"loss": total / seen}

    def _own_loop(self, context: TrainContext) -> tuple[int, dict[str, float]]:
        """The task's loop: what it returns is the example count; without it, the size of its data."""
        assert self.task.train is not None
        examples = self.task.train(self.model, self.training, context)
        if examples is None and is_indexed(self.training):
            examples = len(self.training)
        if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
            raise TaskError(
                "`train` does not return how many examples it used",
                party=self.task.path.name,
                seen=examples,
                expected="a whole number above 0",
            )
        return examples, {}


def differentiable_loss(task: Task, model: nn.Module, batch: Any) -> Tensor:
    """The task's scalar loss, which must lead back to the model's weights."""
    loss = scalar_loss(task, model, batch)
    if not loss.requires_grad:
        raise TaskError(
            "`loss` does not lead back to the model's weights",
            party=task.path.name,
            seen="a tensor without gradient",
            next_step="Leave out .item(), .detach() and torch.no_grad() in `loss`",
        )
    return loss


def _finite(task: Task, loss: Tensor) -> float:
    value = float(loss.detach())
    if not isfinite(value):
        raise TaskError(
            "the training loss is not a finite number",
            party=task.path.name,
            seen=value,
            next_step="Lower training.learning_rate, or look for wrong values in the data",
        )
    return value
