"""MNIST-1D (Greydanus and Kobak, 2020) on 44,682 parameters: the task of the compression bench.

Forty numbers that read like a digit's outline, made by the `mnist1d` package. Who owns which digits is lopsided
(Dirichlet 0.5) and the same under every seed.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from mnist1d.data import get_dataset_args, make_dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard
from fedprune_lab.partition import dirichlet


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def train_data(shard: Shard) -> TensorDataset:
    labels = _made()["y"]
    own = dirichlet(labels, shard.count, alpha=0.5, seed=1, at_least=20)[shard.index]
    return TensorDataset(_signals("x")[own], torch.from_numpy(labels[own]).long())


def test_data() -> TensorDataset:
    return TensorDataset(_signals("x_test"), torch.from_numpy(_made()["y_test"]).long())


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    signals, labels = batch
    return cross_entropy(model(signals), labels)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    signals, labels = batch
    return {"accuracy": (model(signals).argmax(1) == labels).float().mean().item()}


@cache
def _made() -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = make_dataset(get_dataset_args())
    return arrays


def _signals(name: str) -> Tensor:
    return torch.from_numpy(_made()[name]).float()
