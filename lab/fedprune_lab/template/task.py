"""What is trained, and on which data. Every party runs its own copy of this file; it is never sent.

It works as it stands, on points made up below. To make it yours, replace `model` and `train_data`, then run
`fedprune check task.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard

COLUMNS, CLASSES = 16, 5


def model() -> nn.Module:
    """The same network everywhere."""
    return nn.Sequential(
        nn.Linear(COLUMNS, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, CLASSES),
    )


def train_data(shard: Shard) -> TensorDataset:
    """One client's data. Yours: read what lies at `shard.path`, which is what this client's --data names."""
    return made_up_points(800, seed=1 + shard.index)


def test_data() -> TensorDataset:
    """Measured by the coordinator after each round; leave it out if the coordinator has no data."""
    return made_up_points(1000, seed=0)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    points, labels = batch
    return cross_entropy(model(points), labels)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    points, labels = batch
    return {"accuracy": (model(points).argmax(1) == labels).float().mean().item()}


def made_up_points(count: int, seed: int) -> TensorDataset:
    """Points [count, COLUMNS] around four centres for each class."""
    centres = torch.randn(4 * CLASSES, COLUMNS, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(centres), (count,), generator=generator)
    points = centres[which] + 0.8 * torch.randn(count, COLUMNS, generator=generator)
    return TensorDataset(points, which % CLASSES)
