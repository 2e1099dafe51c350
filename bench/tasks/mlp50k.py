"""50,826 parameters on the digits, cut evenly: the task of the overhead bench. Any number of clients will do."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard
from fedprune_lab.digits import DATA


def model() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def train_data(shard: Shard) -> TensorDataset:
    images, labels = _read("train")
    own = slice(shard.index, None, shard.count)
    return TensorDataset(images[own], labels[own])


def test_data() -> TensorDataset:
    return TensorDataset(*_read("test"))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)


def _read(part: str) -> tuple[Tensor, Tensor]:
    with np.load(DATA) as arrays:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    return torch.from_numpy(images).float() / 16, torch.from_numpy(labels).long()
