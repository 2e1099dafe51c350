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
    with np.load(DATA) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
    own = slice(shard.index, None, shard.count)
    return TensorDataset(torch.from_numpy(images[own]).float() / 16, torch.from_numpy(labels[own]).long())


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)
