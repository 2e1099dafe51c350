"""The demo's task: handwritten digits, 8 x 8 pixels, cut among the clients so that each knows some digits well and
others hardly at all.

An ordinary task file: copy it, change three functions, and it is yours. Origin of the pictures: data/README.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard
from fedprune_lab.partition import dirichlet

DATA = Path(__file__).parent / "data" / "digits.npz"
SKEW = 0.5  # Dirichlet concentration: the smaller, the more lopsided the clients
SPLIT_SEED = 1998  # who owns which picture does not change with the run's seed


def model(width: float = 1.0) -> nn.Module:
    wide, narrow = max(1, round(512 * width)), max(1, round(224 * width))
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, wide),
        nn.ReLU(),
        nn.Linear(wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, 10),
    )


def train_data(shard: Shard) -> TensorDataset:
    images, labels = _read("train")
    owned = dirichlet(labels.numpy(), shard.count, alpha=SKEW, seed=SPLIT_SEED, at_least=20)[shard.index]
    return TensorDataset(images[owned], labels[owned])


def test_data() -> TensorDataset:
    return TensorDataset(*_read("test"))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(model(images), labels)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    images, labels = batch
    return {"accuracy": (model(images).argmax(1) == labels).float().mean().item()}


def _read(part: str) -> tuple[Tensor, Tensor]:
    """Pictures scaled to 0..1 [n, 8, 8] and labels [n] of one part of the file."""
    with np.load(DATA) as arrays:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    return torch.from_numpy(images).float() / 16, torch.from_numpy(labels).long()
