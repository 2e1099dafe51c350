"""Task files made up for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

GOOD = {
    "head": "import torch\nfrom torch import nn\nfrom torch.utils.data import TensorDataset\n",
    "model": "def model():\n    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))\n",
    "train_data": (
        "def train_data(shard):\n"
        "    g = torch.Generator().manual_seed(shard.index)\n"
        "    return TensorDataset(torch.randn(37, 4, generator=g), torch.arange(37) % 3)\n"
    ),
    "loss": "def loss(model, batch):\n    return nn.functional.cross_entropy(model(batch[0]), batch[1])\n",
}

WriteTask = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Write a good task file, with some of its parts replaced by other source (empty: left out), and give its path."""

    def write(name: str = "task.py", **parts: str) -> Path:
        path = tmp_path / name
        path.write_text("\n\n".join((GOOD | parts).values()))
        return path

    return write
