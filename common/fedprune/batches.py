"""From what a task returns as data to batches: the same order for the same seed, on any machine.

Data is a dataset of examples (`__len__` and `__getitem__`), a torch `IterableDataset` of examples, or any other
iterable of ready batches that can be read more than once. Only the first can be split and shuffled here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fedprune.errors import LocalError, TaskError
from fedprune.task import UserCode


class Rows(Dataset[Any]):
    """The examples of `data` at `positions` [n], without copying them."""

    def __init__(self, data: Any, positions: Tensor) -> None:
        self.data = data
        self.positions = positions

    def __len__(self) -> int:
        return int(self.positions.numel())

    def __getitem__(self, index: int) -> Any:
        return self.data[int(self.positions[index])]


def is_indexed(data: object) -> bool:
    """True for a dataset of examples: it has a length and can be read at a position."""
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)


def check_data(data: object, *, function: str, party: str) -> None:
    """Raise `TaskError` naming `function` where data is empty, no data at all, or can be read only once."""
    if is_indexed(data):
        if len(data) == 0:  # type: ignore[arg-type]  # is_indexed has seen __len__
            raise TaskError(f"`{function}` returns no examples", party=party, next_step="Check the path and the share")
        return
    if not isinstance(data, Iterable):
        expected = "a Dataset, or an iterable of batches"
        raise TaskError(f"`{function}` returns no data", party=party, seen=type(data).__name__, expected=expected)
    if isinstance(data, Iterator):
        raise TaskError(
            f"`{function}` returns data that can be read only once",
            party=party,
            seen=type(data).__name__,
            next_step="Return a list, a Dataset or a DataLoader",
        )


def split(data: Any, held_out: float, seed: int, fold: int = 0) -> tuple[Any, Any | None]:
    """(training share, held-out share): `held_out` of the examples, at least one where there are two, drawn from
    `seed`; another `fold` holds out others, and all folds together hold out every example once. The held-out share is
    None where there is nothing to spare and for data without positions."""
    if not 0.0 <= held_out < 1.0:
        raise LocalError("held_out is no share", seen=held_out, expected="0 or more, below 1")
    count = len(data) if is_indexed(data) else 0
    if held_out == 0.0 or count < 2:
        return data, None
    first = min(round(count * held_out * fold), count - 1)
    last = min(max(round(count * held_out * (fold + 1)), first + 1), count if first else count - 1)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    rest = torch.cat([order[:first], order[last:]])
    return Rows(data, rest.sort().values), Rows(data, order[first:last].sort().values)


def steps_in_pass(data: Any, batch_size: int) -> int:
    """Batches in one pass, 0 where that is not known beforehand."""
    if not is_indexed(data):
        return 0
    count = len(data)
    return ceil(count / batch_size) - _is_lone(count, batch_size)


def batches(data: Any, batch_size: int, generator: torch.Generator | None) -> Iterator[Any]:
    """One pass over the data. Datasets of examples are shuffled by `generator` (None keeps their order) and the last,
    partial batch is kept; a last batch of one single example joins the one before, because batch norm refuses it."""
    if not is_indexed(data):
        loader = (
            DataLoader(data, batch_size, generator=torch.Generator()) if isinstance(data, IterableDataset) else data
        )
        yield from loader
        return
    plan = _plan(len(data), batch_size, generator)
    tensors, positions = _tensors(data)
    if tensors is None:
        yield from DataLoader(data, batch_sampler=[p.tolist() for p in plan], generator=torch.Generator())
        return
    for chosen in plan:
        rows = chosen if positions is None else positions[chosen]
        yield tuple(t[rows] for t in tensors)


def guarded(source: Iterator[Any], code: UserCode) -> Iterator[Any]:
    """The same batches; what the user's dataset raises becomes a `TaskError`."""
    nothing = object()
    while True:
        with code:
            batch = next(source, nothing)
        if batch is nothing:
            return
        yield batch


def examples_in(batch: Any) -> int:
    """Number of examples: the length of the first tensor found in the batch; a batch without one counts as one."""
    if isinstance(batch, Tensor):
        return int(batch.shape[0]) if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, Sequence) else ()
    return next((examples_in(part) for part in parts if isinstance(part, (Tensor, Mapping, tuple, list))), 1)


def _plan(count: int, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
    order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
    plan = list(torch.split(order, batch_size))
    if _is_lone(count, batch_size):
        plan[-2:] = [torch.cat(plan[-2:])]
    return plan


def _is_lone(count: int, batch_size: int) -> bool:
    return batch_size < count and count % batch_size == 1


def _tensors(data: Any) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
    """(tensors, positions) where batches can be cut out of whole tensors, else (None, None)."""
    inner, positions = (data.data, data.positions) if type(data) is Rows else (data, None)
    return (inner.tensors, positions) if type(inner) is TensorDataset else (None, None)
