"""Four million parameters that one step trains in no time: for benches of everything but training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedprune import Shard


def model() -> nn.Module:
    """A table of 4,000 rows and a classifier."""
    return nn.Sequential(nn.Embedding(4000, 1000), nn.Flatten(), nn.Linear(1000, 3))


def train_data(shard: Shard) -> TensorDataset:
    """Sixteen rows."""
    draw = torch.Generator().manual_seed(shard.index)
    return TensorDataset(torch.randint(0, 4000, (16, 1), generator=draw), torch.arange(16) % 3)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy."""
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)
