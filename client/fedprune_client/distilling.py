"""Learning from the model before a pruning step while the one after it recovers (Hinton et al., 2015).

The teacher is the version that the client held before its mask changed: nothing more travels. Its answers are those to
whatever the task's `loss` asks the model, seen by a hook on the model, so a task needs nothing for it but a model whose
output is a tensor of scores: classes last in three dimensions, [n, time, class], else in the second, [n, class, ...].
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fedprune.errors import TaskError
from fedprune.tensor import Schema
from fedprune.torch import load_arrays

TEMPERATURE = 2.0


@dataclass(slots=True)
class Teacher:
    """A model that does not learn. `share` of the loss is the distance to its answers."""

    model: nn.Module
    share: float
    party: str
    _distances: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(
        cls, student: nn.Module, schema: Schema, weights: Mapping[str, NDArray[Any]], *, share: float, party: str
    ) -> Teacher:
        """The student's architecture with other weights."""
        model = deepcopy(student)
        load_arrays(model, schema, weights)
        model.eval()
        return cls(model=model, share=share, party=party)

    @contextmanager
    def beside(self, student: nn.Module) -> Iterator[None]:
        """Answer whatever the student is asked in the block."""
        handle = student.register_forward_hook(self._answer, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self._distances.clear()

    def blend(self, loss: Tensor) -> Tensor:
        """The task's loss of one batch and the distance to the teacher, which is the mean over what was asked for it."""
        if not self._distances:
            raise TaskError(
                "`loss` does not call the model it is given, so there is nothing to distil",
                party=self.party,
                next_step="Call `model(...)` in `loss`, or set pruning.distill = 0",
            )
        distance = torch.stack(self._distances).mean()
        self._distances.clear()
        return (1 - self.share) * loss + self.share * distance

    def _answer(self, student: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() < 2:
            raise TaskError(
                "the model's output cannot be distilled",
                party=self.party,
                seen=f"{list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__,
                expected="a tensor of scores with two dimensions or more",
                next_step="Set pruning.distill = 0",
            )
        with torch.no_grad():
            wanted = self.model(*args, **kwargs)
        self._distances.append(distance(output, wanted))


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """T^2 KL(teacher || student) of their distributions over classes at temperature T, mean over everything else."""
    classes = -1 if student.dim() == 3 else 1
    log_student = functional.log_softmax(student / TEMPERATURE, dim=classes)
    log_teacher = functional.log_softmax(teacher / TEMPERATURE, dim=classes)
    terms = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return TEMPERATURE**2 * terms.sum(dim=classes).mean()
