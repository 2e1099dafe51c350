"""Data from a known sparse teacher: which weights are right has an answer.

Twenty outputs of sixty inputs each; a tenth of the teacher's weights is not zero, and none of those is small. Clients
have as many examples as their place says, with noise of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from fedprune import Shard

OUTPUTS, INPUTS, KEPT = 20, 60, 120


def truth() -> Tensor:
    """The teacher's weights [outputs, inputs]."""
    draw = torch.Generator().manual_seed(11)
    size = 0.5 + torch.rand(OUTPUTS, INPUTS, generator=draw)
    sign = torch.randint(0, 2, (OUTPUTS, INPUTS), generator=draw) * 2 - 1
    places = torch.randperm(OUTPUTS * INPUTS, generator=draw).reshape(OUTPUTS, INPUTS)
    return size * sign * (places < KEPT)


def model() -> nn.Module:
    return nn.Linear(INPUTS, OUTPUTS, bias=False)


def _answers(seed: int, count: int) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    questions = torch.randn(count, INPUTS, generator=draw)
    return TensorDataset(questions, questions @ truth().T + 0.1 * torch.randn(count, OUTPUTS, generator=draw))


def train_data(shard: Shard) -> TensorDataset:
    return _answers(100 + shard.index, 60 + 40 * shard.index)


def test_data() -> TensorDataset:
    return _answers(7, 200)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    questions, answers = batch
    return mse_loss(model(questions), answers)
