"""ResNet-18 for 32 x 32 pictures (He et al., 2015): 11.17 million parameters with BatchNorm, on noise.

The task of the memory bench: what weighs is the model, so a client has eight pictures and takes one step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import TensorDataset

from fedprune import Shard

PICTURES = 8


class Block(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        same = stride == 1 and width_in == width
        self.skip: nn.Module = nn.Identity()
        if not same:
            self.skip = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.first_norm(self.first(x)))
        return relu(self.second_norm(self.second(inner)) + self.skip(x))


def model() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for wide, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(width, wide, stride), Block(wide, wide, 1)]
        width = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def train_data(shard: Shard) -> TensorDataset:
    noise = torch.Generator().manual_seed(shard.index)
    pictures = torch.randn(PICTURES, 3, 32, 32, generator=noise)
    return TensorDataset(pictures, torch.randint(0, 10, (PICTURES,), generator=noise))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    pictures, labels = batch
    return cross_entropy(model(pictures), labels)
