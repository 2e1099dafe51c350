"""MNIST-1D (Greydanus and Kobak, 2020) on 44,682 parameters: the task of the compression bench.

Forty numbers that read like a digit's outline, made by the `mnist1d` package. Who owns which digits is lopsided
(Dirichlet 0.5) and the same under every seed. The backward pass is written out: at this size most of autograd's time
is bookkeeping, and a bench of a million steps waits for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mnist1d.data import get_dataset_args, make_dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from fedprune import Shard
from fedprune_lab.partition import dirichlet

# Drawn while the file is read, when nothing else runs: the package draws from numpy's own generator, which all threads of
# a process share, and a draw beside other work is another one in each process.
MADE: dict[str, np.ndarray] = make_dataset(get_dataset_args())


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(40, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))


def train_data(shard: Shard) -> TensorDataset:
    labels = MADE["y"]
    own = dirichlet(labels, shard.count, alpha=0.5, seed=1, at_least=20)[shard.index]
    return TensorDataset(_signals("x")[own], torch.from_numpy(labels[own]).long())


def test_data() -> TensorDataset:
    return TensorDataset(_signals("x_test"), torch.from_numpy(MADE["y_test"]).long())


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    signals, labels = batch
    return cross_entropy(model(signals), labels)


def train(model: nn.Sequential, data: TensorDataset, ctx: Any) -> None:
    """What the client's own loop would do, step by step."""
    optimizer = ctx.optimizer(model)
    for signals, labels in ctx.batches(data):
        write_gradients(model, signals.numpy(), labels.numpy())
        optimizer.step()


def write_gradients(model: nn.Sequential, signals: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """The gradient of `loss` into each parameter's `grad`."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    inputs = [signals]
    for layer in layers:
        outputs = inputs[-1] @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        inputs.append(np.maximum(outputs, 0, out=outputs) if layer is not layers[-1] else outputs)
    slope = inputs.pop()
    slope -= slope.max(1, keepdims=True)
    np.exp(slope, out=slope)
    slope /= slope.sum(1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    slope /= len(labels)
    for layer in reversed(layers):
        before = inputs.pop()
        layer.weight.grad = torch.from_numpy(slope.T @ before)
        layer.bias.grad = torch.from_numpy(slope.sum(0))
        if inputs:
            slope = (slope @ layer.weight.detach().numpy()) * (before > 0)


def metrics(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    signals, labels = batch
    return {"accuracy": (model(signals).argmax(1) == labels).float().mean().item()}


def _signals(name: str) -> Tensor:
    return torch.from_numpy(MADE[name]).float()
