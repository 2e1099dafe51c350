"""The demo's digits and their lopsided owners on 50,826 parameters: a task of the accuracy bench."""

from __future__ import annotations

from torch import nn

from fedprune_lab.digits import loss, metrics, test_data, train_data

__all__ = ["loss", "metrics", "model", "test_data", "train_data"]


def model() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )
