"""What a model computes for one example, by tensor: torch's own counter over one forward pass on the meta device.

Nothing is really computed, so a large model costs no time and no memory. The figures are those of the masked model's
algebra: zeros in a dense matrix do not make it faster, only removing them does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedprune.batches import batches, examples_in
from fedprune.errors import TaskError
from fedprune.mask import Mask
from fedprune.report import FlopsReport
from fedprune.task import Task
from fedprune.tensor import Schema

# A multiply-add is a multiplication and an addition; torch counts both.
OPERATIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Multiply-adds of one example: `per_weight[name]` of each weight of a prunable tensor, `fixed` of everything that
    pruning does not touch."""

    per_weight: Mapping[str, float]
    fixed: float

    def flops(self, mask: Mask) -> float:
        """Operations for one example under `mask`."""
        alive = sum(self.per_weight[name] * int(bits.sum()) for name, bits in mask.alive.items())
        return OPERATIONS * (self.fixed + alive)

    def report(self, mask: Mask) -> FlopsReport:
        """The figures of a run that ended with `mask`."""
        each = {name: OPERATIONS * operations for name, operations in self.per_weight.items()}
        return FlopsReport(dense=self.flops(Mask.full(mask.schema)), left=self.flops(mask), per_weight=each)


def forward_cost(task: Task, model: nn.Module, schema: Schema, data: Any) -> Cost:
    """Count one forward pass and loss over the first example of `data`. Raises `TaskError` where the task's code needs
    real numbers to run."""
    batch = next(iter(batches(data, 1, None)))
    count = examples_in(batch)
    dry = copy.deepcopy(model).to("meta")
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            task.loss(dry.eval(), _on_meta(batch))
    except TaskError as error:
        raise TaskError(
            "the operations of this task cannot be counted",
            party=task.path.name,
            seen=error.problem,
            expected="a `loss` that runs on tensors without content",
            next_step="State the budget in another way, such as parameters",
        ) from error
    counts = counter.get_flop_counts()
    root = type(model).__name__
    own = {name: _of_weights(counts.get(_path(root, name), {})) for name, _ in model.named_modules()}
    total = sum(counts.get("Global", {}).values()) / OPERATIONS / count
    per_weight = {spec.name: _share(model, spec.name, own) / OPERATIONS / count for spec in schema.prunable}
    pruned = sum(per_weight[spec.name] * spec.size for spec in schema.prunable)
    return Cost(per_weight=per_weight, fixed=max(0.0, total - pruned))


def _path(root: str, name: str) -> str:
    return f"{root}.{name}" if name else root


def _of_weights(counts: Mapping[Any, int]) -> int:
    """Operations between weights and activations; products of two activations, as in attention, belong to no weight."""
    return sum(count for operation, count in counts.items() if "bmm" not in str(operation))


def _share(model: nn.Module, tensor: str, own: Mapping[str, int]) -> float:
    """Operations for each weight of a tensor: those of the nearest module that counts any, without its parts that count
    their own, spread over its matrices."""
    module = tensor.rpartition(".")[0]
    while module and not own[module]:
        module = module.rpartition(".")[0]
    inside = [name for name in own if own[name] and name != module and name.startswith(f"{module}." if module else "")]
    children = [name for name in inside if not any(name.startswith(f"{other}.") for other in inside)]
    operations = own[module] - sum(own[name] for name in children)
    matrices = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.startswith(f"{module}." if module else "")
        and parameter.ndim > 1
        and not any(name.startswith(f"{child}.") for child in children)
    )
    return operations / matrices if matrices else 0.0


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, Mapping):
        return {key: _on_meta(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_meta(inner) for inner in value)
    return value
