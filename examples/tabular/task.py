"""A table with rare positives: five sites, each with its own habits, one case in ten positive.

The table is made up here so that the example runs anywhere; `_rows` is what you replace by reading your own file from
`shard.path`. Both classes count the same in the loss, whatever their share.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard

COLUMNS = 16
ROWS = 3000
POSITIVE = 0.1  # share of the rows
WEIGHTS = torch.tensor([0.5 / (1 - POSITIVE), 0.5 / POSITIVE])


def model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(COLUMNS, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )


def train_data(shard: Shard) -> TensorDataset:
    return _rows(site=shard.index, count=ROWS)


def test_data() -> TensorDataset:
    """Rows of every site, none of them seen in training."""
    parts = [_rows(site, count=500, seed=1).tensors for site in range(5)]
    return TensorDataset(*(torch.cat(column) for column in zip(*parts, strict=True)))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    rows, labels = batch
    return cross_entropy(model(rows), labels, weight=WEIGHTS, reduction="sum") / len(labels)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Plain accuracy flatters a model that never says yes, so both classes also count half each: `balanced`."""
    rows, labels = batch
    right = (model(rows).argmax(1) == labels).float()
    return {"accuracy": right.mean().item(), "balanced": (right * WEIGHTS[labels]).mean().item()}


def _rows(site: int, count: int, seed: int = 0) -> TensorDataset:
    """Columns [count, COLUMNS] and labels [count] of one site: positive where a few columns conspire most."""
    generator = torch.Generator().manual_seed(1000 * site + seed)
    rows = torch.randn(count, COLUMNS, generator=generator)
    rows[:, site] += 0.8  # each site sees one column shifted
    score = rows[:, 0] * rows[:, 1] + (rows[:, 2] - rows[:, 3]).abs() + rows[:, 4:8].sum(1) / 2
    score += 0.3 * torch.randn(count, generator=generator)
    return TensorDataset(rows, (score > score.quantile(1 - POSITIVE)).long())
