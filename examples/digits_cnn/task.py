"""A convolutional network with batch norm on the digits that come with fedprune.

Only the model is new: data, loss and metrics are those of the demo's task, imported like any other functions.
"""

from torch import nn

from fedprune_lab.digits import loss, metrics, test_data, train_data

__all__ = ["loss", "metrics", "model", "test_data", "train_data"]


def model() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),  # [n, 8, 8] -> [n, 1, 8, 8]
        *_stage(1, 32),
        *_stage(32, 64),
        nn.MaxPool2d(2),
        *_stage(64, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 2 * 2, 10),
    )


def _stage(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
