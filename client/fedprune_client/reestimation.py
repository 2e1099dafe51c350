"""Running statistics measured anew, by forward passes only: after a mask change, those of the old network lie.

Batch norm's mean and variance become plain averages over the batches (FedTiny, Huang et al., 2023, scores its masks
this way); weights do not move, and everything but batch norm runs as it does in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedprune.batches import batches, examples_in, guarded
from fedprune.task import UserCode
from fedprune.tensor import Role
from fedprune.torch import Arrays, load_arrays, seeded, to_arrays
from fedprune.work import ReestimateWork
from fedprune_client.training import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reestimated:
    """All tensors of the schema, of which only buffers differ from what was given, and the examples seen."""

    weights: Arrays
    examples: int


def reestimate(
    trainer: Trainer, weights: Mapping[str, NDArray[Any]], work: ReestimateWork, *, stop: Callable[[], bool]
) -> Reestimated | None:
    """Measure the statistics of `weights` on the training share, or on its first `work.batches` batches; None when
    `stop()` was true after one. Counters stay as they were given."""
    load_arrays(trainer.model, trainer.schema, weights)
    generator = torch.Generator().manual_seed(work.seed)
    reading = UserCode(trainer.task.path, "reading `train_data`")
    source = guarded(batches(trainer.training, work.batch_size, generator), reading)
    examples = 0
    with seeded(work.seed), torch.no_grad(), _measuring(trainer.model):
        for batch in islice(source, work.batches or None):
            trainer.task.loss(trainer.model, batch)
            examples += examples_in(batch)
            if stop():
                return None
    arrays = to_arrays(trainer.model, trainer.schema)
    arrays |= {spec.name: weights[spec.name].copy() for spec in trainer.schema.of(Role.COUNTER)}
    return Reestimated(weights=arrays, examples=examples)


@contextmanager
def _measuring(model: nn.Module) -> Iterator[None]:
    """Batch norms that keep statistics start from nothing and average; the momentum comes back afterwards."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
