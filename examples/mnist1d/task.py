"""MNIST-1D: forty numbers that read like a digit's outline, made by the `mnist1d` package in about a second.

Small enough for a laptop, hard enough to tell methods apart (Greydanus and Kobak, 2020). One-dimensional convolutions;
the clients hold lopsided shares of the digits.
"""

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
    return nn.Sequential(
        nn.Unflatten(1, (1, 40)),
        nn.Conv1d(1, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(64, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 5, 10),
    )


def train_data(shard: Shard) -> TensorDataset:
    signals, labels = _read("x"), _read("y").long()
    own = torch.from_numpy(dirichlet(labels.numpy(), shard.count, alpha=0.5, seed=1, at_least=20)[shard.index])
    return TensorDataset(signals[own], labels[own])


def test_data() -> TensorDataset:
    return TensorDataset(_read("x_test"), _read("y_test").long())


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


def _read(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(_made()[name], np.float32))
